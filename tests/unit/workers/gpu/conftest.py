"""Small checkpoints of random weights, and runners of them in Triton's interpreter."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.checkpoint import Checkpoint, find_attention_layers, open_checkpoint
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.gpu.loading import fused_runner

SMALL: dict[str, object] = dict(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=40,
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
ENGINE = EngineConfig(block_tokens=16, kv_blocks=12, step_tokens_max=16, running_max=4)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Save = Callable[..., Path]


@pytest.fixture(scope="session")
def device() -> str:
    """Where there is a GPU its kernels are tested, else the same in the interpreter."""
    return DEVICE


@pytest.fixture(scope="session")
def save_family(tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Writes a checkpoint; biases are not zero."""

    def save(family: str, **options: object) -> Path:
        config = AutoConfig.for_model(family, **(SMALL | options))
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
            elif "norm" in name:
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
        path = tmp_path_factory.mktemp(family) / family
        model.save_pretrained(path)
        return path

    return save


@pytest.fixture(scope="session")
def open_runner() -> Callable[..., tuple[GpuRunner, Checkpoint]]:
    def load(path: Path, engine: EngineConfig = ENGINE) -> tuple[GpuRunner, Checkpoint]:
        checkpoint = open_checkpoint(ModelConfig(path=str(path), device=DEVICE))
        sightings = find_attention_layers(checkpoint.model, checkpoint.config)
        return fused_runner(checkpoint, sightings, engine), checkpoint

    return load
