"""A quantised checkpoint is served like the plain one that has the same weights, or refused with the reason."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tercet.clock import ManualClock
from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.checkpoint import Checkpoint, open_checkpoint
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.sharding import shard
from tercet.workers.quantised.fp8_weight import Fp8Linear
from tercet.workers.quantised.gptq_layout import GptqLayout

ENGINE = EngineConfig(block_tokens=4, kv_blocks=32, step_tokens_max=9)
LAYOUTS = [
    "compressed fp8 by channel",
    "compressed fp8 by tensor",
    "compressed fp8 by block",
    "compressed int4",
    "compressed int4 with zeros",
    "compressed int8",
    "fp8 by block",
    "fp8 by tensor",
    "fbgemm",
    "awq",
    "gptq",
    "gptq in another order",
    "gptq v2",
]

Save = Callable[..., object]


def opened(path: Path, dtype: str = "float32", fp8_stays: bool = False) -> Checkpoint:
    return open_checkpoint(ModelConfig(path=str(path), dtype=dtype), fp8_stays=fp8_stays)


def described(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    config = json.loads((path / "config.json").read_bytes())
    change(config["quantization_config"])
    (path / "config.json").write_text(json.dumps(config))


def served(path: Path) -> list[list[int]]:
    """Greedy and seeded answers, computed in company and in chunks."""
    engine = Engine(ModelRunner.load(ModelConfig(path=str(path)), ENGINE), ENGINE, ManualClock())
    samplings = [Sampling(max_tokens=12), Sampling(max_tokens=12, temperature=1.0, seed=3)]
    answers: dict[RequestId, list[int]] = {}
    for number, sampling in enumerate(samplings):
        prompt = [(5 + 7 * number + 11 * i) % 64 for i in range(17 + number)]
        spec = RequestSpec(RequestId(f"r{number}"), prompt, sampling)
        answers[spec.id] = []
        engine.handle(Run(spec, Epoch(0), "door"))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Said) and isinstance(event.message, Tokens):
                answers[event.message.request] += event.message.tokens
    return list(answers.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_are_those_that_were_stored(save_pair: Save, layout: str) -> None:
    pair = save_pair(layout)
    for dtype in ("float32", "bfloat16"):
        weights = opened(pair.quantised, dtype).model.state_dict()
        expected = opened(pair.plain, dtype).model.state_dict()
        assert weights.keys() == expected.keys()
        for name, weight in weights.items():
            assert torch.equal(weight, expected[name]), name


@pytest.mark.parametrize(
    ("layout", "tied"),
    [("compressed fp8 by channel", False), ("compressed int4", True), ("gptq", False)],
)
def test_answers_are_the_plain_models_token_for_token(
    save_pair: Save, layout: str, tied: bool
) -> None:
    pair = save_pair(layout, tie_word_embeddings=tied)
    answers = served(pair.quantised)
    assert answers == served(pair.plain)
    assert len(set(answers[0])) > 2, "the answer is constant: this test would prove nothing"


def test_experts_are_read_one_by_one_and_merged_as_the_family_wants(save_pair: Save) -> None:
    experts = dict(
        num_experts=2, num_experts_per_tok=1, moe_intermediate_size=32, attention_bias=False
    )
    pair = save_pair("fp8 by block", "qwen3_moe", **experts)
    weights, expected = (opened(p).model.state_dict() for p in (pair.quantised, pair.plain))
    assert any(".experts." in name for name in weights)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_zeros_of_gptq_go_around() -> None:
    """Where the smallest code is zero itself, what is stored is less by one: the largest."""
    layout = GptqLayout({"bits": 4})
    tensors = {
        "qweight": torch.tensor([[0x76543210]], dtype=torch.int32),
        "qzeros": torch.tensor([[-1]], dtype=torch.int32),
        "scales": torch.ones(1, 8),
    }
    tensors["qweight"] = tensors["qweight"].repeat(1, 8)
    weight = layout.weight("layer", tensors)
    assert weight is not None
    assert weight[0].tolist() == list(range(8))


def test_ranks_share_out_plain_weights(save_pair: Save) -> None:
    pair = save_pair("awq", num_key_value_heads=4)
    parts = []
    for path in (pair.quantised, pair.plain):
        model = opened(path).model
        shard(model, Group(rank=1, ranks=2))
        parts.append(model.state_dict())
    assert parts[0].keys() == parts[1].keys()
    assert all(torch.equal(weight, parts[1][name]) for name, weight in parts[0].items())


def test_layers_may_be_stored_in_unlike_ways(save_pair: Save) -> None:
    """The group that names a layer goes before the one for all linear layers, wherever it stands."""
    pair = save_pair("compressed mixed")
    weights, expected = (opened(p).model.state_dict() for p in (pair.quantised, pair.plain))
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


def test_tensors_of_a_layer_may_lie_in_several_files(save_pair: Save) -> None:
    pair = save_pair("awq")
    whole = load_file(pair.quantised / "model.safetensors")
    names = sorted(whole)
    files = {name: f"part-{i % 3}.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        mine = {name: whole[name] for name in names if files[name] == file}
        save_file(mine, pair.quantised / file, {"format": "pt"})
    (pair.quantised / "model.safetensors").unlink()
    index = pair.quantised / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    weights, expected = (opened(p).model.state_dict() for p in (pair.quantised, pair.plain))
    assert all(torch.equal(weight, expected[name]) for name, weight in weights.items())


@pytest.mark.parametrize(
    ("layout", "changed", "reason"),
    [
        ("awq", dict(quant_method="bitsandbytes"), "quant_method is 'bitsandbytes'; compressed"),
        ("awq", dict(version="gemv"), "stored for gemv; gemm can be read"),
        ("awq", dict(bits=3), "only 4-bit"),
        ("gptq", dict(bits=3), r"have 3 bits; \(2, 4, 8\) can be read"),
        ("gptq", dict(bits=8), "not stored with the 8 bits"),
        ("gptq", dict(checkpoint_format="marlin"), "stored as marlin"),
        ("fp8 by block", dict(weight_block_size=[32, 32]), "scales .* do not fit weights"),
        ("compressed int4", dict(format="marlin-24"), "stored as marlin-24"),
        ("compressed int4", dict(transform_config={"config_groups": {}}), "transform_config"),
        ("compressed int4", dict(sparsity_config={"format": "sparse-24-bitmask"}), "sparse-24"),
        ("compressed int4", dict(config_groups={}), "no group of quantization_config"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(
    save_pair: Save, layout: str, changed: dict[str, object], reason: str
) -> None:
    pair = save_pair(layout)
    described(pair.quantised, lambda settings: settings.update(changed))
    with pytest.raises(ModelUnsupported, match=reason):
        opened(pair.quantised)


@pytest.mark.parametrize(
    ("layout", "module"), [("awq", "awq_layout"), ("compressed int4", "compressed_layout")]
)
def test_a_library_that_is_missing_is_named(
    save_pair: Save, monkeypatch: pytest.MonkeyPatch, layout: str, module: str
) -> None:
    path = save_pair(layout, num_hidden_layers=1).quantised
    monkeypatch.setitem(sys.modules, f"tercet.workers.quantised.{module}", None)
    with pytest.raises(ModelUnsupported, match="needs compressed-tensors installed"):
        opened(path)


def test_weights_that_are_not_there_are_not_made_up(save_pair: Save) -> None:
    path = save_pair("gptq").quantised / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.1.mlp.up_proj.qweight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelUnsupported, match=r"lack model\.layers\.1\.mlp\.up_proj\.weight"):
        opened(path.parent)


def test_weights_of_another_shape_are_refused(save_pair: Save) -> None:
    path = save_pair("gptq").quantised / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = torch.ones(65)
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(ModelUnsupported, match=r"have in another shape model\.norm\.weight"):
        opened(path.parent)


def test_quantisation_that_only_another_file_tells_of_is_refused(save_pair: Save) -> None:
    path = save_pair("gptq").plain
    (path / "hf_quant_config.json").write_text("{}")
    with pytest.raises(ModelUnsupported, match="hf_quant_config"):
        opened(path)


def test_how_weights_are_stored_is_part_of_what_is_compared(save_pair: Save) -> None:
    pair = save_pair("gptq")
    before = ModelRunner.load(ModelConfig(path=str(pair.quantised)), ENGINE).compat
    described(pair.quantised, lambda settings: settings.update(checkpoint_format="gptq_v2"))
    assert ModelRunner.load(ModelConfig(path=str(pair.quantised)), ENGINE).compat != before


def test_blocks_that_no_kernel_knows_become_plain_weights(save_pair: Save) -> None:
    kept = opened(save_pair("fp8 by block").quantised, fp8_stays=True)
    assert not any(isinstance(module, Fp8Linear) for module in kept.model.modules())
    assert not kept.rounds_inputs


def test_eight_bit_layers_can_stay_and_give_the_same_logits(save_pair: Save) -> None:
    pair = save_pair("fp8 by block of 128", hidden_size=192)
    kept, plain = opened(pair.quantised, fp8_stays=True), opened(pair.plain)
    layers = [module for module in kept.model.modules() if isinstance(module, Fp8Linear)]
    assert len(layers) == 14
    assert type(kept.model.get_output_embeddings()) is torch.nn.Linear
    ids = torch.arange(20)[None]
    assert torch.equal(kept.model(ids).logits, plain.model(ids).logits)
