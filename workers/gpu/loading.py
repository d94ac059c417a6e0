"""Loads a checkpoint for a GPU: fused where that gives the model's own logits, else as transformers computes it."""

import logging
from collections.abc import Callable

import msgspec
import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.kernels.gpu.attention_tuning import attention_tuning
from tercet.workers.attention import Sighting
from tercet.workers.checkpoint import Checkpoint, find_attention_layers, open_checkpoint
from tercet.workers.decoder_form import Unfusable
from tercet.workers.gpu.attention_step import AttentionPlan
from tercet.workers.gpu.captured import Captured, GraphPool
from tercet.workers.gpu.decoder import buckets
from tercet.workers.gpu.fused_model import FusedModel
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.gpu.kv_memory import DeviceMemory, blocks_that_fit
from tercet.workers.gpu.weights import multiplies_fp8
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import Runner, Slice
from tercet.workers.trial import Trial

INTERPRETED_PROGRAMS = 3
GRAPH_BYTES = 512 * 2**20
"""What graphs and the compiler's modules need beside what a profiled step does."""

log = logging.getLogger(__name__)


def load_for_gpu(model: ModelConfig, engine: EngineConfig) -> Runner:
    """Raises ModelUnsupported with the reason. `engine.kv_blocks` 0 takes as many as fit."""
    fp8_stays = multiplies_fp8(torch.device(model.device))
    checkpoint = open_checkpoint(model, fp8_stays=fp8_stays)
    room = engine.kv_blocks or -(-checkpoint.context_tokens_max // engine.block_tokens)
    trial = Trial.of(checkpoint, msgspec.structs.replace(engine, kv_blocks=room))
    sightings = find_attention_layers(checkpoint.model, checkpoint.config)
    try:
        runner = fused_runner(checkpoint, sightings, engine)
        trial.hold(runner)
    except (Unfusable, ModelUnsupported) as exc:
        if engine.kv_blocks == 0:
            raise ModelUnsupported(f"engine.kv_blocks must be given for this model: {exc}") from exc
        log.warning(
            "this model runs without fused kernels and graphs, several times slower: %s", exc
        )
        plain = ModelRunner(checkpoint, sightings, engine)
        trial.hold(plain)
        return plain
    if checkpoint.model.device.type == "cuda":
        capture(runner, engine)
    return runner


def fused_runner(
    checkpoint: Checkpoint, sightings: list[Sighting], engine: EngineConfig
) -> GpuRunner:
    """Raises Unfusable, and ModelUnsupported where there is no room."""
    device = checkpoint.model.device
    model = FusedModel.of(checkpoint.model, sightings, checkpoint.context_tokens_max)
    plan = _plan(sightings[0], checkpoint.model.dtype, device)
    _, kv_heads, _, head_dim = sightings[0].key_shape
    geometry = KvGeometry(
        len(sightings), kv_heads, head_dim, engine.block_tokens, checkpoint.model.dtype
    )

    def make(blocks: int) -> GpuRunner:
        kv = KvPool(geometry, blocks, device)
        return GpuRunner(checkpoint, model, plan, kv, engine.running_max)

    if engine.kv_blocks:
        return make(engine.kv_blocks)
    memory = _peak(make, geometry, engine, checkpoint)
    model.unbind()
    torch.cuda.empty_cache()
    context_blocks = -(-checkpoint.context_tokens_max // geometry.block_tokens)
    return make(blocks_that_fit(memory, engine.memory_share, geometry.block_bytes, context_blocks))


def capture(runner: GpuRunner, engine: EngineConfig) -> None:
    """Records a graph for each number of rows."""
    pool = GraphPool()
    with torch.inference_mode():
        runner.decoder.make(lambda work: Captured(work, pool), buckets(engine.running_max))


def _peak(
    make: Callable[[int], GpuRunner],
    geometry: KvGeometry,
    engine: EngineConfig,
    checkpoint: Checkpoint,
) -> DeviceMemory:
    """What the largest step needs beside KV: one is computed."""
    device = checkpoint.model.device
    tokens = min(engine.step_tokens_max, checkpoint.context_tokens_max)
    blocks = -(-tokens // geometry.block_tokens)
    torch.cuda.reset_peak_memory_stats(device)
    make(blocks).forward([Slice([0] * tokens, 0, list(range(blocks)), sample=True)])
    torch.cuda.synchronize(device)
    memory = DeviceMemory.of(device)
    return DeviceMemory(
        memory.total, memory.others + GRAPH_BYTES, memory.peak - blocks * geometry.block_bytes
    )


def _plan(sighting: Sighting, dtype: torch.dtype, device: torch.device) -> AttentionPlan:
    heads, (_, kv_heads, _, head_dim) = sighting.query_shape[1], sighting.key_shape
    tuning = attention_tuning(device, head_dim, dtype.itemsize)
    programs = INTERPRETED_PROGRAMS
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        programs = properties.multi_processor_count * tuning.decode.programs_per_sm
    return AttentionPlan(tuning, programs, heads, kv_heads)
