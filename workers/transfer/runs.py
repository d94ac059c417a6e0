"""Fewest copies for a list of blocks, decided for all of them at once: a loop over 4,096 blocks costs more than to read them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tercet.ids import BlockId

Blocks = npt.NDArray[np.int64]
"""Shape [blocks]: block numbers, or counts of blocks."""


class Runs(NamedTuple):
    """`length[i]` blocks from `local[i]` and `remote[i]` on are neighbours on both sides."""

    local: Blocks
    remote: Blocks
    length: Blocks


def numbers(blocks: Sequence[BlockId]) -> Blocks:
    return np.array(blocks, dtype=np.int64)


def runs(local: Blocks, remote: Blocks) -> Runs:
    """Fewest copies that move block `remote[i]` to `local[i]`, in that order: descriptors cost more than bytes."""
    assert len(local) == len(remote) > 0, (len(local), len(remote))
    apart = (local[1:] - local[:-1] != 1) | (remote[1:] - remote[:-1] != 1)
    ends = np.concatenate((np.flatnonzero(apart) + 1, [len(local)]))
    starts = np.concatenate(([0], ends[:-1]))
    return Runs(local[starts], remote[starts], ends - starts)
