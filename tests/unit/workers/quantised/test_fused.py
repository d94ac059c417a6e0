"""Weights that stay in 8 bits give the logits of the plain model in the fused kernels too; in Triton's interpreter here."""

from collections.abc import Callable

import pytest
import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.checkpoint import eager_logits, open_checkpoint
from tercet.workers.gpu import loading
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.gpu.loading import load_for_gpu
from tercet.workers.model_runner import ModelRunner
from tercet.workers.quantised.fp8_weight import Fp8Linear
from tercet.workers.runner import Slice

ENGINE = EngineConfig(block_tokens=16, kv_blocks=6, step_tokens_max=128, running_max=2)
TOKENS = [(7 + 11 * i) % 64 for i in range(90)]
ENDS = [4, 12, 90]
"""The last chunk is of more rows than go through the kernel for few."""

WIDE = dict(hidden_size=192, intermediate_size=192, num_attention_heads=12, num_key_value_heads=4)
"""No layer reads so few features that a block has them all."""

Save = Callable[..., object]


@pytest.mark.parametrize(
    ("layout", "options"),
    [("compressed fp8 by tensor", {}), ("fp8 by block of 128", WIDE)],
)
def test_logits_are_the_plain_models(
    save_pair: Save, monkeypatch: pytest.MonkeyPatch, layout: str, options: dict[str, object]
) -> None:
    monkeypatch.setattr(loading, "multiplies_fp8", lambda device: True)
    pair = save_pair(layout, num_hidden_layers=1, attention_bias=False, **options)
    runner = load_for_gpu(ModelConfig(path=str(pair.quantised)), ENGINE)
    assert isinstance(runner, GpuRunner)
    plain = open_checkpoint(ModelConfig(path=str(pair.plain)))
    expected = eager_logits(plain.model, TOKENS, [end - 1 for end in ENDS])
    blocks = [3, 1, 0, 5, 2, 4]
    logits = [
        runner.forward([Slice(TOKENS[start:end], start, blocks, True)])
        for start, end in zip([0, *ENDS], ENDS, strict=False)
    ]
    torch.testing.assert_close(torch.cat(logits), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "options", "rounds"),
    [
        ("compressed fp8 by channel", {}, True),
        ("fp8 by block of 128", WIDE, False),
    ],
)
def test_kv_is_not_exchanged_with_a_worker_that_does_not_round(
    save_pair: Save,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    options: dict[str, object],
    rounds: bool,
) -> None:
    path = save_pair(layout, num_hidden_layers=1, **options).quantised
    model = ModelConfig(path=str(path), dtype="bfloat16")
    exact = ModelRunner.load(model, ENGINE).compat
    monkeypatch.setattr(loading, "multiplies_fp8", lambda device: True)
    assert (load_for_gpu(model, ENGINE).compat != exact) == rounds


def test_a_family_that_is_not_fused_keeps_its_eight_bits(
    save_pair: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "multiplies_fp8", lambda device: True)
    pair = save_pair("fbgemm", "olmo2", num_hidden_layers=1, attention_bias=False)
    runner = load_for_gpu(ModelConfig(path=str(pair.quantised)), ENGINE)
    assert isinstance(runner, ModelRunner)
    assert any(isinstance(module, Fp8Linear) for module in runner._model.modules())
    plain = open_checkpoint(ModelConfig(path=str(pair.plain)))
    expected = eager_logits(plain.model, TOKENS, [89])
    logits = runner.forward([Slice(TOKENS, 0, [0, 1, 2, 3, 4, 5], True)])
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
