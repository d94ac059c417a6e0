"""Whose heads lie where, when a block is shared out: what one rank of ours reads of which ranks of a peer.

A block is `[planes, heads, block_tokens, head_dim]`, where a plane is the keys or the values of one layer. Of `k` ranks the
`r`-th holds the `r`-th of `k` equal runs of heads, of every plane. Ranks that hold the same heads copy whole blocks, and
neighbours among them at once; others copy a piece a plane.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import HeadShare, Memory, Spans
from tercet.workers.transfer.runs import Blocks, Runs
from tercet.workers.transfer.words import spans

Pieces = npt.NDArray[np.int64]
"""Shape [pieces, 3]: offset in a block of ours, offset in a block of theirs, and length, in bytes."""


SOLE = HeadShare(rank=0, ranks=1, planes=1, heads=1)
"""Of a memory that says nothing about heads: of unlike peers nothing can be pulled into it."""


class Overlap(NamedTuple):
    """The heads that one rank of theirs has of ours: so many, `here` and `there` counted from either's first."""

    rank: int
    here: int
    there: int
    heads: int


class Source(NamedTuple):
    """One rank of a peer, and what is read of it."""

    agent: str
    region: KvRegion
    pieces: Pieces | None
    """None: whole blocks."""

    def spans(self, memory: Memory, local: Blocks, remote: Blocks, found: Runs) -> Spans:
        """Copies that bring blocks `remote`, or our part of them, to `local`; `found` are the runs of both."""
        if self.pieces is None:
            return spans(
                memory.address, found.local, self.region.base, found.remote, found.length,
                memory.block_bytes,
            )  # fmt: skip
        here, there, length = self.pieces.T
        copies = np.empty((len(local), len(here), 3), dtype=np.uint64)
        copies[:, :, 0] = memory.address + local[:, None] * memory.block_bytes + here
        copies[:, :, 1] = self.region.base + remote[:, None] * self.region.block_bytes + there
        copies[:, :, 2] = length
        return copies.reshape(-1, 3)


def rank_agent(peer: str, rank: int) -> str:
    """The name of a rank's agent; rank 0's is the worker's."""
    return f"{peer}/{rank}" if rank else peer


def overlaps(share: HeadShare, ranks: int) -> list[Overlap]:
    """What a rank of ours needs of each of `ranks` at a peer."""
    own, theirs = share.heads // share.ranks, share.heads // ranks
    first = share.rank * own
    found = []
    for rank in range(ranks):
        low, high = max(first, rank * theirs), min(first + own, (rank + 1) * theirs)
        if low < high:
            found.append(Overlap(rank, low - first, low - rank * theirs, high - low))
    return found


def needed_ranks(memory: Memory, ranks: int) -> list[int]:
    """Whom an agent must know: those it reads heads of, and rank 0, which has the generation words."""
    if ranks == 1 or memory.share is None:
        return [0]
    return sorted({0, *(each.rank for each in overlaps(memory.share, ranks))})


def sources(memory: Memory, peer: str, regions: Sequence[KvRegion]) -> list[Source]:
    """Raises `TransferFailed` when blocks there are no blocks of ours."""
    share, ranks = memory.share or SOLE, len(regions)
    theirs = regions[0].block_bytes * ranks
    if theirs != memory.block_bytes * share.ranks:
        raise TransferFailed(f"blocks of {theirs} bytes do not fit {memory.block_bytes}")
    if share.ranks == ranks:
        return [Source(rank_agent(peer, share.rank), regions[share.rank], None)]
    if share.heads % ranks:
        raise TransferFailed(f"{ranks} ranks cannot hold {share.heads} heads")
    return [
        Source(rank_agent(peer, each.rank), regions[each.rank], _pieces(memory, share, ranks, each))
        for each in overlaps(share, ranks)
    ]


def _pieces(memory: Memory, share: HeadShare, ranks: int, overlap: Overlap) -> Pieces:
    own, theirs = share.heads // share.ranks, share.heads // ranks
    head_bytes = memory.block_bytes // (share.planes * own)
    planes = np.arange(share.planes)
    found = np.empty((share.planes, 3), dtype=np.int64)
    found[:, 0] = (planes * own + overlap.here) * head_bytes
    found[:, 1] = (planes * theirs + overlap.there) * head_bytes
    found[:, 2] = overlap.heads * head_bytes
    return found
