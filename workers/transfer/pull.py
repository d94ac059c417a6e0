"""One pull: read the blocks, then the generation words, then compare. Knows no thread and no backend."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

import numpy as np

from tercet.errors import TransferFailed
from tercet.ids import BlockId
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Agent, Kind, Memory, PullJob, Read
from tercet.workers.transfer.heads import Source, sources
from tercet.workers.transfer.runs import Blocks, Runs, numbers, runs
from tercet.workers.transfer.words import Landing, WordPlaces


class Phase(Enum):
    BLOCKS = auto()
    WORDS = auto()
    OVER = auto()


@dataclass(slots=True)
class Pull:
    """A job on its way. `reads` are what is in flight: while there are any, our blocks may still be written."""

    job: PullJob
    memory: Memory
    """The pool, or, for packed blocks, where they are read into; `regions` are its counterpart on the peer's ranks."""
    regions: Sequence[KvRegion]
    arrivals: WordPlaces
    slots: tuple[BlockId, ...] = ()
    """Of `memory`, for packed blocks."""
    first_place: int = 0
    """Of `memory`'s own places among the arrivals."""
    deadline_s: float = 0.0
    started_s: float = 0.0
    phase: Phase = Phase.BLOCKS
    reads: list[Read] = field(default_factory=list)
    local: Blocks = field(init=False)
    remote: Blocks = field(init=False)
    runs: Runs = field(init=False)
    sources: list[Source] = field(init=False)
    landing: Landing | None = None

    def __post_init__(self) -> None:
        self.local = numbers(self.slots or self.job.local_blocks)
        self.remote = numbers(self.job.remote_blocks)

    @property
    def bytes(self) -> int:
        return len(self.local) * self.memory.block_bytes

    @property
    def was_stale(self) -> bool:
        """Whether the failure was the data's, not the peer's."""
        return self.phase is Phase.OVER

    def check(self) -> None:
        """Raises `TransferFailed` when the job names memory that is not there."""
        local, remote = self.local, self.remote
        if not len(local) == len(remote) == len(self.job.generations) > 0:
            raise TransferFailed("a pull needs as many blocks here as there, and a word for each")
        self.sources = sources(self.memory, self.job.peer, self.regions)
        blocks = min(region.blocks for region in self.regions)
        # As unsigned numbers, negative ones are too large as well.
        if not (remote.view(np.uint64) < blocks).all():
            raise TransferFailed(f"the peer has {blocks} blocks only")
        assert (local.view(np.uint64) < self.memory.blocks).all(), self.job

    def start(self, agent: Agent) -> None:
        """Post a read of the blocks from each source; raises `TransferFailed`, maybe with some of them in flight."""
        self.runs = runs(self.local, self.remote)
        for source in self.sources:
            copies = source.spans(self.memory, self.local, self.remote, self.runs)
            self.reads.append(agent.read(source.agent, Kind.BLOCKS, copies))

    def advance(self, agent: Agent) -> bool:
        """One look at what is in flight; True when all is here and verified. Raises `TransferFailed` when a read has ended badly."""
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
        """One look at reads whose results nobody wants any more; True when all have ended, well or badly."""
        try:
            return self._ended()
        except TransferFailed:
            return not self.reads  # the pull was reported as failed already

    def _ended(self) -> bool:
        for read in list(self.reads):
            try:
                ended = read.done()
            except TransferFailed:
                self._let_go(read)
                raise
            if ended:
                self._let_go(read)
        return not self.reads

    def _let_go(self, read: Read) -> None:
        self.reads.remove(read)
        self._leave()

    def _leave(self) -> None:
        if self.landing is not None:
            self.arrivals.leave(self.landing)

    def _read_words(self, agent: Agent) -> None:
        places, at = self.local + self.first_place, self.runs.local + self.first_place
        self.landing = self.arrivals.land(
            places, self.remote, self.runs._replace(local=at), self.regions[0].generation_base
        )
        try:
            self.reads.append(agent.read(self.job.peer, Kind.WORDS, self.landing.spans))
        except TransferFailed:
            self._leave()
            raise

    def _compare(self) -> None:
        assert self.landing is not None
        words = self.arrivals.words[self.landing.places]
        stale = int(np.count_nonzero(words != np.array(self.job.generations, dtype=np.uint64)))
        if stale:
            raise TransferFailed(f"{stale} of {len(words)} blocks were reused while they were read")
