"""Lean layers give the logits, keys and values of the modules that they stand in for, and leave what they do not know to those."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tercet.config import EngineConfig, ModelConfig
from tercet.kernels.paged_attention import best_paged_attention
from tercet.kernels.paged_batch import PagedBatch
from tercet.workers.activation import accelerate_activations
from tercet.workers.checkpoint import eager_logits, find_attention_layers, open_checkpoint
from tercet.workers.decoder_form import Unfusable
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.lean_model import LeanModel
from tercet.workers.linear import accelerate_linears
from tercet.workers.model_runner import ModelRunner
from tercet.workers.norm import accelerate_norms
from tercet.workers.runner import Slice, go_on

SMALL: dict[str, object] = dict(
    vocab_size=48,
    hidden_size=40,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)
FAMILIES: dict[str, dict[str, object]] = {
    "llama": dict(tie_word_embeddings=True),
    "qwen2": dict(use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "qwen3": dict(),
    "mistral": dict(sliding_window=8),
    "gemma": dict(hidden_activation="gelu_pytorch_tanh"),
}
BLOCK_TOKENS, BLOCKS = 8, 12
TOKENS = [(7 + 11 * i) % 48 for i in range(21)]

Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes a checkpoint whose biases and norms are not those of a new model."""

    def write(family: str, **options: object) -> Path:
        torch.manual_seed(0)
        config = AutoConfig.for_model(family, **(SMALL | options))
        model = AutoModelForCausalLM.from_config(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
            elif "norm" in name:
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
        model.save_pretrained(tmp_path / family)
        return tmp_path / family

    return write


def lean_model(path: Path, threads: int = 1) -> tuple[LeanModel, KvPool]:
    checkpoint = open_checkpoint(ModelConfig(path=str(path)))
    model = checkpoint.model
    accelerate_linears(model, threads)
    accelerate_norms(model)
    accelerate_activations(model, model.dtype, threads)
    sightings = find_attention_layers(model, checkpoint.config)
    _, kv_heads, _, head_dim = sightings[0].key_shape
    geometry = KvGeometry(len(sightings), kv_heads, head_dim, BLOCK_TOKENS, model.dtype)
    pool = KvPool(geometry, BLOCKS)
    attention = best_paged_attention(
        model.device, model.dtype, head_dim, sightings[0].query_shape[1] // kv_heads, threads
    )
    return LeanModel(model, sightings, pool, attention, checkpoint.context_tokens_max), pool


def step(
    model: LeanModel,
    parts: list[tuple[list[int], int, list[int]]],
    between: Callable[[], None] = go_on,
) -> torch.Tensor:
    """Of requests with their tokens, what is before these, and blocks: logits after each one's last."""
    lengths = [len(tokens) for tokens, _, _ in parts]
    starts, tables = [start for _, start, _ in parts], [blocks for _, _, blocks in parts]
    batch = PagedBatch.of(lengths, starts, tables, BLOCK_TOKENS)
    last = (batch.query_starts[1:] - 1).tolist()
    with torch.inference_mode():
        return model([token for tokens, _, _ in parts for token in tokens], batch, last, between)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(save: Save, family: str) -> None:
    """A prompt in two chunks beside a decode of another request."""
    path = save(family, **FAMILIES[family])
    own = open_checkpoint(ModelConfig(path=str(path))).model
    expected = eager_logits(own, TOKENS, [4, 11, 20])
    model, _ = lean_model(path)
    step(model, [(TOKENS[:4], 0, [7])])
    first = step(model, [(TOKENS[:12], 0, [3, 1, 5])])
    second = step(model, [(TOKENS[12:], 12, [3, 1, 5]), (TOKENS[4:5], 4, [7])])
    logits = torch.cat([first, second])[[2, 0, 1]]
    assert float((logits - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_step_between_two_layers_of_another_changes_no_bit_of_it(save: Save, family: str) -> None:
    path = save(family)
    (calm, calm_kv), (torn, torn_kv) = lean_model(path), lean_model(path)
    whole = step(calm, [(TOKENS, 0, [3, 1, 5])])
    short = step(calm, [(TOKENS[3:9], 0, [7])])
    answers: list[torch.Tensor] = []
    between = step(
        torn,
        [(TOKENS, 0, [3, 1, 5])],
        lambda: answers.append(step(torn, [(TOKENS[3:9], 0, [7])])),
    )
    assert torch.equal(between, whole)
    assert len(answers) == 2, "once in each layer"
    assert all(torch.equal(answer, short) for answer in answers)
    assert torch.equal(calm_kv.tensor, torn_kv.tensor)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("gemma2", dict(sliding_window=8, query_pre_attn_scalar=16), "pre_feedforward_layernorm"),
        ("phi3", dict(), "resid_attn_dropout"),
        ("olmo2", dict(), "made of"),
        ("llama", dict(hidden_act="relu"), "activation"),
    ],
)
def test_other_structures_are_refused(
    save: Save, family: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(Unfusable, match=reason):
        lean_model(save(family, **options))


def test_a_family_that_only_looks_alike_runs_on_its_own_modules(
    save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    """Granite scales residuals and logits, which no module shows."""
    path = save("granite", residual_multiplier=0.3, logits_scaling=2.0, embedding_multiplier=3.0)
    lean_model(path)
    engine = EngineConfig(block_tokens=BLOCK_TOKENS, kv_blocks=BLOCKS)
    runner = ModelRunner.load(ModelConfig(path=str(path)), engine)
    assert "not on lean layers" in caplog.text
    expected = eager_logits(open_checkpoint(ModelConfig(path=str(path))).model, TOKENS, [20])
    logits = runner.forward([Slice(TOKENS, 0, [3, 1, 5], True)])
    assert float((logits - expected).norm() / expected.norm()) < 1e-4
