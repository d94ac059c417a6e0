"""What only a GPU can show: a captured step draws what its uncaptured twin draws."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.request import Sampling
from tercet.workers.checkpoint import find_attention_layers, open_checkpoint
from tercet.workers.gpu.loading import capture, fused_runner
from tercet.workers.runner import Slice

ENGINE = EngineConfig(block_tokens=64, kv_blocks=32, step_tokens_max=64, running_max=8)
SAMPLINGS = [Sampling(), Sampling(temperature=1.0, top_p=0.9, seed=7), Sampling()]


@pytest.mark.gpu
def test_captured_steps_draw_what_uncaptured_ones_draw(save_family: Callable[..., Path]) -> None:
    """In bf16, with tokens fed on the device, while a request joins and another leaves."""
    path = save_family(
        "qwen3", hidden_size=256, intermediate_size=512, head_dim=64, max_position_embeddings=512
    )
    drawn = []
    for captured in (False, True):
        checkpoint = open_checkpoint(ModelConfig(path=str(path), dtype="bfloat16", device="cuda"))
        sightings = find_attention_layers(checkpoint.model, checkpoint.config)
        runner = fused_runner(checkpoint, sightings, ENGINE)
        if captured:
            capture(runner, ENGINE)
        blocks = [[3, 9], [5, 1], [7, 2]]
        prompts = [Slice([5 + i] * 20, 0, blocks[i], True, i) for i in range(3)]
        launched = [runner.launch(prompts, SAMPLINGS)]
        for step in range(12):
            taking_part = [0, 1] if step < 6 else [1, 2] if step < 9 else [2]
            start = [20 + step, 20 + step, 20 + max(0, step - 6)]
            slices = [Slice([], start[i], blocks[i], True, i, fed=True) for i in taking_part]
            launched.append(runner.launch(slices, [SAMPLINGS[i] for i in taking_part]))
        drawn.append([draws.wait() for draws in launched])
    assert torch.cuda.is_available()
    assert drawn[0] == drawn[1]
