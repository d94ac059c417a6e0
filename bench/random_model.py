"""Models of random weights in the shape of known ones, made on the device: benchmarks fetch nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from tercet.config import EngineConfig
from tercet.workers.checkpoint import Checkpoint, find_attention_layers
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.gpu.loading import capture, fused_runner

SHAPES: dict[str, dict[str, object]] = {
    "tiny": dict(
        family="qwen3", vocab_size=64, hidden_size=32, intermediate_size=40, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16,
    ),
    "Llama-3.1-8B": dict(
        family="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336,
        num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    ),
    "Qwen3-8B": dict(
        family="qwen3", vocab_size=151936, hidden_size=4096, intermediate_size=12288,
        num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8, head_dim=128,
    ),
    "Qwen3-0.6B": dict(
        family="qwen3", vocab_size=151936, hidden_size=1024, intermediate_size=3072,
        num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        tie_word_embeddings=True,
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model the floors depend on."""

    decode_weight_bytes: int
    """Read in every decode step: all but the embedding, whose rows are looked up."""
    linear_parameters: int
    """Of the layers, which every token of a prompt goes through."""
    kv_bytes: int
    """Of a token, in all layers."""
    attention_flop: int
    """Of one pair of positions, in all layers."""


def random_model(
    name: str, context_tokens: int, device: torch.device, dtype: torch.dtype
) -> Checkpoint:
    """Weights from N(0, 0.02), norms of 1; flat logits, so nothing is to be read off its text."""
    options = dict(SHAPES[name])
    config = AutoConfig.for_model(
        str(options.pop("family")),
        max_position_embeddings=context_tokens,
        eos_token_id=None,
        pad_token_id=0,
        **options,
    )
    with torch.device(device):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation="eager"
        )
    return Checkpoint(
        path=Path("random"),
        model=model.eval().requires_grad_(False),
        config=config,
        eos_token_ids=frozenset(),
        context_tokens_max=context_tokens,
    )


def shape_of(checkpoint: Checkpoint) -> Shape:
    model, config = checkpoint.model, checkpoint.config
    layers = sum(p.numel() for p in model.base_model.layers.parameters())
    head = model.get_output_embeddings().weight.numel()
    pair = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    kv = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    size = model.dtype.itemsize
    return Shape((layers + head) * size, layers, kv * size, pair)


def open_runner(checkpoint: Checkpoint, engine: EngineConfig, *, graphs: bool = True) -> GpuRunner:
    """As `load_for_gpu` does, without a comparison of logits."""
    sightings = find_attention_layers(checkpoint.model, checkpoint.config)
    runner = fused_runner(checkpoint, sightings, engine)
    if graphs and checkpoint.model.device.type == "cuda":
        capture(runner, engine)
    return runner


def tables(lengths: Sequence[int], blocks: int, block_tokens: int) -> list[list[int]]:
    """Blocks of requests of these lengths, dealt at random."""
    order = torch.randperm(blocks).tolist()
    return [[order.pop() for _ in range(-(-length // block_tokens))] for length in lengths]
