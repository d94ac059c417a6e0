"""The fused kernels give the logits of transformers, family by family, and refuse what they do not know."""

from collections.abc import Callable

import pytest
import torch

from tercet.config import ModelConfig
from tercet.workers.checkpoint import (
    Checkpoint,
    eager_logits,
    find_attention_layers,
    open_checkpoint,
)
from tercet.workers.decoder_form import Unfusable
from tercet.workers.gpu.fused_model import FusedModel
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.runner import Slice

FAMILIES: dict[str, dict[str, object]] = {
    "llama": dict(
        tie_word_embeddings=True,
        rope_parameters=dict(
            rope_type="llama3",
            rope_theta=1e4,
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
    ),
    "qwen2": dict(num_hidden_layers=1),
    "qwen3": dict(),
    "mistral": dict(sliding_window=8, num_hidden_layers=1),
    "gemma": dict(hidden_activation="gelu_pytorch_tanh", num_hidden_layers=1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(
    family: str,
    device: str,
    save_family: Callable[..., object],
    open_runner: Callable[..., tuple[GpuRunner, Checkpoint]],
) -> None:
    """A prompt in two chunks beside a decode of another request: both kinds of attention, many rows and few."""
    path = save_family(family, **FAMILIES[family])
    tokens = [(7 + 11 * i) % 48 for i in range(21)]
    checkpoint = open_checkpoint(ModelConfig(path=str(path), device=device))
    expected = eager_logits(checkpoint.model, tokens, [4, 11, 20])
    runner, _ = open_runner(path)
    first = [Slice(tokens[:12], 0, [3, 1], True), Slice(tokens[:4], 0, [7], False)]
    second = [Slice(tokens[12:], 12, [3, 1], True), Slice(tokens[4:5], 4, [7], True)]
    logits = torch.cat([runner.forward(first), runner.forward(second)])
    expected = expected[[1, 2, 0]]
    assert float((logits - expected).norm() / expected.norm()) < 1e-4


@pytest.mark.parametrize(
    ("family", "options", "reason"),
    [
        ("gemma2", dict(sliding_window=8, query_pre_attn_scalar=16), "pre_feedforward_layernorm"),
        ("phi3", dict(), "resid_attn_dropout"),
        ("olmo2", dict(), "made of"),
    ],
)
def test_other_structures_are_refused(
    family: str, options: dict[str, object], reason: str, save_family: Callable[..., object]
) -> None:
    checkpoint = open_checkpoint(ModelConfig(path=str(save_family(family, **options))))
    sightings = find_attention_layers(checkpoint.model, checkpoint.config)
    with pytest.raises(Unfusable, match=reason):
        FusedModel.of(checkpoint.model, sightings, 64)
