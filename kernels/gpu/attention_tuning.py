"""Sizes that decide how fast attention kernels are, and nothing else but the last bits: a table a GPU, shipped, never searched for.

A tile's positions and a split decide the order in which sums are made, so two workers whose results must be equal bit for bit
need equal tables. Tables are `tuned/<compute capability>.json`, or, where there is one, `tuned/<device name>.json`.
"""

from functools import cache
from pathlib import Path

import msgspec
import torch

from tercet.kernels.gpu.split_rule import SplitRule

FOLDER = Path(__file__).with_name("tuned")
DEFAULT = "sm_90"


class DecodeTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tile` positions at a time; splits from `split_min`, a multiple of it, to `split_max`; a persistent grid of programs."""

    tile: int
    split_min: int
    split_max: int
    warps: int
    stages: int
    programs_per_sm: int

    @property
    def splits(self) -> SplitRule:
        return SplitRule(self.split_min, self.split_max)


class PrefillTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`rows` (query rows times query heads of a key/value head) by `tile` positions at a time."""

    rows: int
    tile: int
    warps: int
    stages: int


class AttentionTuning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For head dims up to `head_dim_max`, and keys and values of `kv_bytes` an element in pages."""

    head_dim_max: int
    kv_bytes: int
    decode: DecodeTuning
    chunk: PrefillTuning
    fresh: PrefillTuning


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`measured` says on what and with which versions; empty where nobody has."""

    measured: str
    attention: list[AttentionTuning]


def attention_tuning(device: torch.device, head_dim: int, kv_bytes: int) -> AttentionTuning:
    """The entry for this device; of unknown GPUs, and of the interpreter, that of an H100."""
    entries = _table(device).attention
    fitting = (e for e in entries if e.kv_bytes >= kv_bytes and e.head_dim_max >= head_dim)
    return min(fitting, key=lambda e: (e.kv_bytes, e.head_dim_max))


@cache
def _table(device: torch.device) -> Table:
    names = [DEFAULT]
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        name = torch.cuda.get_device_name(device).replace(" ", "_")
        names = [name, f"sm_{major}{minor}", DEFAULT]
    path = next(path for name in names if (path := FOLDER / f"{name}.json").exists())
    return msgspec.json.decode(path.read_bytes(), type=Table)
