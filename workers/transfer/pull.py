"""One pull: read the blocks, then the generation words, then compare. Knows no thread and no backend."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tercet.errors import TransferFailed
from tercet.ids import BlockId
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Agent, Kind, Memory, PullJob, Read, Span

WORD_BYTES = 8

Arrivals = npt.NDArray[np.uint64]
"""Shape [blocks]: where the word that belongs to our block `i` is read to."""


class Run(NamedTuple):
    """`length` blocks that are neighbours on both sides."""

    local: int
    remote: int
    length: int


def runs(local_blocks: Sequence[BlockId], remote_blocks: Sequence[BlockId]) -> list[Run]:
    """Fewest copies that move `remote_blocks[i]` to `local_blocks[i]`: descriptors cost more than bytes."""
    found: list[Run] = []
    for local, remote in zip(local_blocks, remote_blocks, strict=True):
        if found and found[-1].local + found[-1].length == local:
            last = found[-1]
            if last.remote + last.length == remote:
                found[-1] = last._replace(length=last.length + 1)
                continue
        found.append(Run(local, remote, 1))
    return found


class Phase(Enum):
    BLOCKS = auto()
    WORDS = auto()
    OVER = auto()


@dataclass(slots=True)
class Pull:
    """A job on its way. `read` is what is in flight; None before `start` and when nothing can be written any more."""

    job: PullJob
    memory: Memory
    region: KvRegion
    arrivals: Arrivals
    deadline_s: float = 0.0
    started_s: float = 0.0
    phase: Phase = Phase.BLOCKS
    read: Read | None = None

    @property
    def bytes(self) -> int:
        return len(self.job.local_blocks) * self.memory.block_bytes

    @property
    def was_stale(self) -> bool:
        """Whether the failure was the data's, not the peer's."""
        return self.phase is Phase.OVER

    def check(self) -> None:
        """Raises `TransferFailed` when the job names memory that is not there."""
        job = self.job
        if not len(job.local_blocks) == len(job.remote_blocks) == len(job.generations) > 0:
            raise TransferFailed("a pull needs as many blocks here as there, and a word for each")
        if self.region.block_bytes != self.memory.block_bytes:
            raise TransferFailed(
                f"blocks of {self.region.block_bytes} bytes do not fit {self.memory.block_bytes}"
            )
        if not 0 <= min(job.remote_blocks) <= max(job.remote_blocks) < self.region.blocks:
            raise TransferFailed(f"the peer has {self.region.blocks} blocks only")
        assert 0 <= min(job.local_blocks) <= max(job.local_blocks) < self.memory.blocks, job

    def start(self, agent: Agent) -> None:
        """Post the read of the blocks; raises `TransferFailed` with nothing in flight."""
        memory, region = self.memory, self.region
        size = memory.block_bytes
        spans = [
            Span(
                memory.address + run.local * size,
                region.base + run.remote * size,
                run.length * size,
            )
            for run in runs(self.job.local_blocks, self.job.remote_blocks)
        ]
        self.read = agent.read(self.job.peer, Kind.BLOCKS, spans)

    def advance(self, agent: Agent) -> bool:
        """One look at what is in flight; True when all is here and verified. Raises `TransferFailed`, read ended."""
        if not self._ended():
            return False
        if self.phase is Phase.BLOCKS:
            self.phase = Phase.WORDS
            self._read_words(agent)
            if not self._ended():
                return False
        self.phase = Phase.OVER
        self._compare()
        return True

    def linger(self) -> bool:
        """One look at a read whose result nobody wants any more; True when it has ended, well or badly."""
        try:
            return self._ended()
        except TransferFailed:
            return True  # reported as failed already, when its deadline passed

    def _ended(self) -> bool:
        assert self.read is not None, self.phase
        try:
            ended = self.read.done()
        except TransferFailed:
            self.read = None
            raise
        if ended:
            self.read = None
        return ended

    def _read_words(self, agent: Agent) -> None:
        # Generations start at 1, so a word that was not written shows.
        self.arrivals[list(self.job.local_blocks)] = 0
        to, there = self.arrivals.ctypes.data, self.region.generation_base
        spans = [
            Span(
                to + run.local * WORD_BYTES,
                there + run.remote * WORD_BYTES,
                run.length * WORD_BYTES,
            )
            for run in runs(self.job.local_blocks, self.job.remote_blocks)
        ]
        self.read = agent.read(self.job.peer, Kind.WORDS, spans)

    def _compare(self) -> None:
        words = self.arrivals[list(self.job.local_blocks)]
        stale = int(np.count_nonzero(words != np.array(self.job.generations, dtype=np.uint64)))
        if stale:
            raise TransferFailed(f"{stale} of {len(words)} blocks were reused while they were read")
