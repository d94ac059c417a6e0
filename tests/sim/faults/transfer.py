"""Pulls of a simulated worker: the production transfer without its thread, over reads that may fail, be late, or land late."""

from collections.abc import Callable

from faults import kv
from faults.packing import PACKED_BYTES, STAGED, STAGED_WORDS, UNPACKING, SimPacking, SimUnpacker
from faults.process import Process
from tercet.config import TransferConfig
from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Agent, Kind, Memory, Spans, TransferEvent, Words
from tercet.workers.transfer.thread import TransferThread
from tercet.workers.transfer.words import WORD_BYTES, WordPlaces

BLOCK_BYTES = 8 * kv.BLOCK_TOKENS
STUCK_S = 0.05
"""A read from a process that is stopped is looked at again after so long."""


class SimRead:
    """One read in flight. It copies what lies at the source when its time has come, in one or two parts."""

    def __init__(self, agent: "SimAgent", source: Process, kind: Kind, spans: Spans) -> None:
        self.agent, self.source, self.kind = agent, source, kind
        self.ended, self.failure = False, ""
        first = spans[0].tolist()
        self.packed = first[1] >= STAGED
        self.pairs = agent.pairs(kind, spans, packed=self.packed)
        """Block numbers here and there, or slots."""
        self._left = list(self.pairs)

    @property
    def blocks(self) -> list[int]:
        """Those it may still write into."""
        return self.places if self.kind is Kind.BLOCKS and not self.packed else []

    @property
    def slots(self) -> set[int]:
        """Those of the memory from which blocks are unpacked."""
        return set(self.places) if self.kind is Kind.BLOCKS and self.packed else set()

    @property
    def places(self) -> list[int]:
        return [here for here, _ in self.pairs]

    def done(self) -> bool:
        if self.ended and self.failure:
            raise TransferFailed(self.failure)
        return self.ended

    def copy_half(self) -> None:
        """A part of it has come already."""
        half = len(self._left) // 2
        if self.source.alive and not self.ended:
            self._copy(self._left[:half])
            self._left = self._left[half:]

    def land(self, failure: str) -> None:
        """The end, well or badly."""
        if not self.source.alive:
            failure = failure or f"{self.source} is gone"
        elif self.source.stopped and self.agent.waits_for_stopped and not failure:
            self.agent.later(STUCK_S, self, failure)
            return
        if failure:
            self._spoil()
        else:
            self._copy(self._left)
        self.failure = failure
        self.ended = True
        self.agent.landed(self)

    def _copy(self, pairs: list[tuple[int, int]]) -> None:
        if self.kind is Kind.BLOCKS:
            ours, theirs = self._memories()
            for here, there in pairs:
                ours[here][:] = theirs[there]
        else:
            source = self.source.packing.staging if self.packed else self.source.engine
            for here, there in pairs:
                self.agent.words[here] = source.generations[there]

    def _memories(self) -> tuple[kv.Memory, kv.Memory]:
        here, there = self.agent.process, self.source
        if self.packed:
            return here.unpacker.staging.packed.rows, there.packing.staging.packed.rows
        return here.engine.memory, there.engine.memory

    def _spoil(self) -> None:
        """Nobody says what a read has written that did not end well."""
        if self.kind is Kind.BLOCKS:
            ours, _ = self._memories()
            for here in self.places:
                ours[here][0] = kv.GARBAGE


class SimAgent:
    """An `Agent` on the simulated network."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.engine = process.engine
        self.in_flight: list[SimRead] = []
        self.words: Words
        self._words_base = 0
        self.waits_for_stopped = process.network.chaos.dice.random() < 0.5
        self._peers: set[str] = set()

    @property
    def metadata(self) -> bytes:
        return self.process.name.encode()

    def add_peer(self, peer: str, region: KvRegion) -> None:
        if peer not in self.process.world.agents:
            raise TransferFailed(f"{peer} cannot be reached")
        assert peer not in self._peers, f"{peer} was introduced twice"
        self._peers.add(peer)

    def remove_peer(self, peer: str) -> None:
        assert not [read for read in self.in_flight if read.source.name == peer], peer
        self._peers.remove(peer)

    def read(self, peer: str, kind: Kind, spans: Spans) -> SimRead:
        assert peer in self._peers, f"{peer} was not introduced"
        source = self.process.world.agents.get(peer)
        if source is None:
            raise TransferFailed(f"{peer} is gone")
        read = SimRead(self, source, kind, spans)
        self.in_flight.append(read)
        self.process.world.invariants.changes += 1
        fate = self.process.network.chaos.read(kind, source)
        if fate.half_s:
            self.process.network.timeline.call_later(fate.half_s, read.copy_half)
        self.later(fate.lasts_s, read, fate.failure)
        if kind is Kind.BLOCKS:
            packed = "packed " if read.packed else ""
            self._tell(f"reads {packed}{read.pairs} from {peer}, {fate}")
        return read

    def later(self, delay_s: float, read: SimRead, failure: str) -> None:
        self.process.network.timeline.call_later(delay_s, read.land, failure)

    def landed(self, read: SimRead) -> None:
        self.in_flight.remove(read)
        if read.kind is Kind.BLOCKS:
            self._tell(f"read into {read.places} has ended {read.failure}")
        self.process.loop.call_soon(self.process.transfer.look)

    def pairs(self, kind: Kind, spans: Spans, *, packed: bool) -> list[tuple[int, int]]:
        if kind is Kind.BLOCKS:
            size, base = (PACKED_BYTES, UNPACKING) if packed else (BLOCK_BYTES, 0)
            first = STAGED if packed else 0
        else:
            size, base, first = WORD_BYTES, self._words_base, STAGED_WORDS if packed else 0
        found: list[tuple[int, int]] = []
        for local, remote, length in spans.tolist():
            here, there = (local - base) // size, (remote - first) // size
            found += [(here + i, there + i) for i in range(length // size)]
        return found

    def place_words(self, places: WordPlaces) -> None:
        """Where generation words are read to."""
        self.words, self._words_base = places.words, places.address

    def progress(self) -> None:
        """Nobody needs our help."""

    def close(self) -> None: ...

    def _tell(self, what: str) -> None:
        self.process.network.story.tell(self.process, what)


class SimTransfer(TransferThread):
    """Takes a turn when there is something to look at, in place of a thread that looks all the time."""

    def __init__(
        self,
        process: Process,
        config: TransferConfig,
        agent: SimAgent,
        deliver: Callable[[TransferEvent], None],
        packing: SimPacking | None = None,
        unpacker: SimUnpacker | None = None,
    ) -> None:
        blocks = process.engine.pool.blocks
        memory = Memory(0, BLOCK_BYTES, blocks, 0)
        self._process, self._agent = process, agent
        super().__init__(
            process.name,
            memory,
            config,
            None,
            deliver,
            None,
            process.network.timeline,
            unpacker,
            packing and packing.staging.memory,
        )
        agent.place_words(self._arrivals)
        self._region = self._describe(memory, agent.metadata)
        self._looking = False

    def look(self) -> None:
        """One turn, and another one when the next deadline has passed."""
        self._looking = False
        self._turn(self._agent)
        if self._active:
            due_s = min(pull.deadline_s for pull in self._active)
            self._process.loop.call_at(due_s + 1e-4, self.look)

    def _command(self, command: Callable[[Agent], None]) -> None:
        super()._command(command)
        if not self._looking:
            self._looking = True
            self._process.loop.call_soon(self.look)
