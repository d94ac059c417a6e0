"""Loading one rank's part of a model."""

from dataclasses import replace
from typing import NamedTuple

import msgspec
import torch

from tercet.config import EngineConfig, ModelConfig
from tercet.workers.checkpoint import Checkpoint, open_checkpoint
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.group import Group
from tercet.workers.parallel.sharding import shard
from tercet.workers.trial import Trial


class Part(NamedTuple):
    """`trial`, which is the whole model's, needs all ranks; only rank 0 has made one."""

    runner: ModelRunner
    trial: Trial | None


def load_part(model: ModelConfig, engine: EngineConfig, group: Group) -> Part:
    """Raises ModelUnsupported. The whole model is in host memory until it is cut; a GPU sees only the part."""
    torch.set_num_threads(engine.threads)
    checkpoint = open_checkpoint(msgspec.structs.replace(model, device="cpu"))
    trial = Trial.of(checkpoint, engine) if group.rank == 0 else None
    shard(checkpoint.model, group)
    runner = ModelRunner.over(_moved(checkpoint, model.device, group.rank), engine, group.ranks)
    return Part(runner, trial)


def _moved(checkpoint: Checkpoint, device: str, rank: int) -> Checkpoint:
    """On the rank's own GPU, of those that the worker may see."""
    if device == "cpu":
        return checkpoint
    return replace(checkpoint, model=checkpoint.model.to(torch.device(device, rank)))
