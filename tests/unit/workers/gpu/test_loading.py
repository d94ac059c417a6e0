"""A checkpoint is served by fused kernels where they give its logits, and by transformers' own modules elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.gpu.loading import load_for_gpu
from tercet.workers.model_runner import ModelRunner

ENGINE = EngineConfig(block_tokens=16, kv_blocks=4, step_tokens_max=16, running_max=2)
GEMMA2 = dict(sliding_window=8, query_pre_attn_scalar=16)


def test_a_family_that_is_known_by_its_modules_is_fused(
    device: str, save_family: Callable[..., Path]
) -> None:
    path = save_family("llama", num_hidden_layers=1)
    assert isinstance(load_for_gpu(ModelConfig(path=str(path), device=device), ENGINE), GpuRunner)


@pytest.mark.parametrize(
    ("family", "options"),
    [("gemma2", GEMMA2), ("granite", dict(residual_multiplier=0.5, num_hidden_layers=1))],
    ids=["other modules", "other logits"],
)
def test_any_other_runs_as_it_is_and_says_so(
    family: str,
    options: dict[str, object],
    device: str,
    save_family: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = save_family(family, **options)
    assert isinstance(load_for_gpu(ModelConfig(path=str(path), device=device), ENGINE), ModelRunner)
    assert "without fused kernels" in caplog.text


def test_nobody_counts_blocks_for_a_model_that_is_not_fused(
    save_family: Callable[..., Path],
) -> None:
    path = save_family("gemma2", **GEMMA2)
    engine = EngineConfig(block_tokens=16, kv_blocks=0)
    with pytest.raises(ModelUnsupported, match="kv_blocks must be given"):
        load_for_gpu(ModelConfig(path=str(path)), engine)
