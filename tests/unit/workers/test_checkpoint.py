"""What cannot be served is refused when it is loaded, with a reason an operator can act on."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, T5Config, T5ForConditionalGeneration

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.kernels.softmax_rule import SoftmaxRule
from tercet.workers import checkpoint, trial
from tercet.workers.attention import Probe
from tercet.workers.model_runner import ModelRunner

SMALL = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
)


def save(folder: Path, family: str, **options: object) -> Path:
    config = AutoConfig.for_model(family, **(SMALL | options))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def load(path: Path, context_tokens_max: int = 0) -> ModelRunner:
    model = ModelConfig(path=str(path), context_tokens_max=context_tokens_max)
    return ModelRunner.load(model, EngineConfig(block_tokens=4, kv_blocks=16))


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnsupported, match=r"no config\.json"):
        load(tmp_path)


def test_a_checkpoint_without_weights_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, "llama")
    (path / "model.safetensors").unlink()
    with pytest.raises(ModelUnsupported, match="cannot be loaded"):
        load(path)


def test_an_unknown_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    with pytest.raises(ModelUnsupported, match="unheard_of"):
        load(tmp_path)


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    config = T5Config(vocab_size=64, d_model=32, num_layers=1, num_heads=2, d_kv=16, d_ff=48)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match="t5 is an encoder-decoder"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("mamba", {}, "state is not paged: linear_attention"),
        ("bert", {}, "not causal"),
        ("bloom", dict(n_layer=2, n_head=2), "does not use the attention interface"),
        (
            "qwen2_moe",
            dict(
                num_experts=2,
                num_experts_per_tok=1,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
                use_sliding_window=True,
                sliding_window=8,
                layer_types=["sliding_attention", "full_attention"],
            ),
            "hides its sliding window of 8",
        ),
        (
            "deepseek_v3",
            dict(
                kv_lora_rank=16,
                q_lora_rank=16,
                qk_rope_head_dim=8,
                qk_nope_head_dim=16,
                v_head_dim=16,
                n_routed_experts=2,
                num_experts_per_tok=1,
                moe_intermediate_size=16,
                n_group=1,
                topk_group=1,
                first_k_dense_replace=1,
            ),
            "keys of 24 and values of 16 dimensions",
        ),
    ],
)
def test_families_out_of_reach_are_refused_by_what_they_do(
    tmp_path: Path, family: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(ModelUnsupported, match=reason):
        load(save(tmp_path, family, **options))


def test_wrong_logits_are_found_at_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(*arguments: object) -> torch.Tensor:
        return checkpoint.eager_logits(*arguments).roll(1, dims=-1)  # type: ignore[arg-type]

    path = save(tmp_path, "llama")
    monkeypatch.setattr(trial, "eager_logits", shifted)
    with pytest.raises(ModelUnsupported, match="gives other logits"):
        load(path)


def test_the_context_may_be_shortened_but_not_stretched(tmp_path: Path) -> None:
    path = save(tmp_path, "llama")
    assert load(path).context_tokens_max == 128
    assert load(path, 100).context_tokens_max == 100
    with pytest.raises(ModelUnsupported, match="128 is this checkpoint's limit"):
        load(path, 129)


def test_ropes_that_depend_on_the_batch_are_served_up_to_their_original_length(
    tmp_path: Path,
) -> None:
    rope = dict(
        rope_type="longrope",
        rope_theta=1e4,
        short_factor=[1.0] * 8,
        long_factor=[2.0] * 8,
        original_max_position_embeddings=64,
    )
    options = dict(original_max_position_embeddings=64, rope_parameters=rope)
    path = save(tmp_path, "phi3", **options)
    assert load(path).context_tokens_max == 64


def test_a_probe_answers_in_the_shape_of_values() -> None:
    probe = Probe()
    query, key, value = torch.ones(1, 4, 3, 8), torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 6)
    answer = probe(torch.nn.Identity(), query, key, value, SoftmaxRule(scale=1.0))
    assert answer.shape == (1, 3, 4, 6)
    assert [sighting.key_shape for sighting in probe.sightings] == [key.shape]
