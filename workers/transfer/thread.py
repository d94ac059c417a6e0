"""The one thread that owns a backend's agent: starts pulls, watches their deadlines, keeps late reads in quarantine.

Agents have no progress thread of their own (NIXL's spins on a whole core), so this thread looks after them all their life,
for our peers' sake as well: over TCP they read from us only while we poll.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue

from tercet.clock import Clock, MonotonicClock
from tercet.config import TransferConfig
from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import (
    Agent,
    Decoder,
    Deliver,
    Memory,
    OpenAgent,
    Pulled,
    PullFailed,
    PullJob,
    Settled,
)
from tercet.workers.transfer.codec_choice import Codec
from tercet.workers.transfer.pace import Pace
from tercet.workers.transfer.peer_book import PeerBook
from tercet.workers.transfer.pull import Pull
from tercet.workers.transfer.words import WordPlaces

logger = logging.getLogger(__name__)

READS_MAX = 8
"""Pulls posted at once from one peer; further ones wait their turn, and their deadline starts when they are posted."""
STOP_WAIT_S = 1.0
"""How long `stop` lets reads in flight end by themselves before it ends them with the agent."""


class TransferThread:
    """A `Transfer` over any backend. `deliver` gets its events, `crashed` any exception that is a bug; both on its thread.

    With a `decoder` packed blocks can be pulled; with `staging`, memory of ours where blocks lie packed, peers can do so.
    """

    def __init__(
        self,
        name: str,
        memory: Memory,
        config: TransferConfig,
        open_agent: OpenAgent,
        deliver: Deliver,
        crashed: Callable[[BaseException], None],
        clock: Clock | None = None,
        decoder: Decoder | None = None,
        staging: Memory | None = None,
    ) -> None:
        self._name = name
        self._memory = memory
        self._config = config
        self._open_agent = open_agent
        self._deliver = deliver
        self._crashed = crashed
        self._clock = clock or MonotonicClock()
        self._decoder = decoder
        self._staging = staging
        self._arrivals = WordPlaces(memory.blocks + (decoder.memory.blocks if decoder else 0))
        self._commands: SimpleQueue[Callable[[Agent], None]] = SimpleQueue()
        self._wake = threading.Event()
        self._stop_by_s: float | None = None
        self._readers = 0
        self._accepted = 0
        self._over = 0
        self._accept_lock = threading.Lock()
        self._peers = PeerBook(memory)
        self._pace = Pace()
        self._queued: deque[Pull] = deque()
        self._active: list[Pull] = []
        self._lingering: list[Pull] = []
        self._thread = threading.Thread(target=self._main, name=f"transfer {name}", daemon=True)
        self._opened: SimpleQueue[KvRegion | BaseException] = SimpleQueue()
        self._region: KvRegion | None = None

    # ---- called from any thread --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Create the agent and register memory; blocks until that is done. Raises what the backend raised."""
        self._thread.start()
        opened = self._opened.get()
        if isinstance(opened, BaseException):
            self._thread.join()
            raise opened
        self._region = opened

    def stop(self) -> None:
        """End the thread and the agent; blocks up to `STOP_WAIT_S`, longer only if the backend does. Idempotent."""
        self._stop_by_s = self._clock.now_s() + STOP_WAIT_S
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def region(self) -> KvRegion:
        assert self._region is not None, "not started"
        return self._region

    @property
    def others(self) -> tuple[KvRegion, ...]:
        return ()

    @property
    def unsettled(self) -> int:
        return self._accepted - self._over

    @property
    def staged(self) -> KvRegion | None:
        """What peers need to read packed blocks from us."""
        if self._staging is None:
            return None
        return self._describe(self._staging, self.region.agent)

    def add_peer(
        self,
        peer: str,
        region: KvRegion,
        staged: KvRegion | None = None,
        others: Sequence[KvRegion] = (),
    ) -> None:
        self._command(lambda agent: self._peers.add(agent, peer, (region, *others), staged))

    def remove_peer(self, peer: str) -> None:
        self._command(lambda agent: self._peers.remove(agent, peer))

    def pull(self, job: PullJob) -> None:
        with self._accept_lock:
            self._accepted += 1
        self._command(lambda agent: self._accept(agent, job))

    def expect_readers(self, readers: int) -> None:
        first = readers > 0 and not self._readers
        self._readers = readers
        if first:  # it may be about to sleep as long as when there are none
            self._wake.set()

    def _command(self, command: Callable[[Agent], None]) -> None:
        self._commands.put(command)
        self._wake.set()

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            staging = [self._staging] if self._staging else []
            if self._decoder is not None:
                staging.append(self._decoder.memory)
            agent = self._open_agent(self._name, self._memory, self._arrivals.words, staging)
        except BaseException as exc:
            self._opened.put(exc)
            return
        self._opened.put(self._describe(self._memory, agent.metadata))
        try:
            while not self._finished():
                pause_s = self._pause_s()
                if pause_s:
                    self._wake.wait(pause_s)
                    self._wake.clear()
                self._turn(agent)
        except BaseException as exc:
            self._crashed(exc)
        finally:
            for pulls in (self._queued, self._active, self._lingering):
                pulls.clear()  # reads know the agent, which must not outlive this thread
            agent.close()

    @staticmethod
    def _describe(memory: Memory, metadata: bytes) -> KvRegion:
        return KvRegion(
            metadata,
            memory.address,
            memory.block_bytes,
            memory.blocks,
            memory.generation_address,
            memory.device,
        )

    def _finished(self) -> bool:
        if self._stop_by_s is None:
            return False
        return not self.unsettled or self._clock.now_s() >= self._stop_by_s

    def _pause_s(self) -> float:
        return self._pace.next_pause_s(
            reading=bool(self._active), watchful=bool(self._readers or self._lingering)
        )

    def _turn(self, agent: Agent) -> None:
        """Everything there is to do now: commands, new reads, the reads in flight, our peers' reads."""
        while True:
            try:
                command = self._commands.get_nowait()
            except Empty:
                break
            command(agent)
        while (pull := self._next()) is not None:
            self._start(agent, pull)
        began_cpu_s = time.thread_time()
        agent.progress()
        self._pace.looked(time.thread_time() - began_cpu_s)
        self._active = [pull for pull in self._active if self._still_active(agent, pull)]
        self._lingering = [pull for pull in self._lingering if self._still_lingering(agent, pull)]

    def _next(self) -> Pull | None:
        """The first in the queue whose peer has a place left: one that does not answer holds up nobody else's pulls."""
        posted = Counter(pull.job.peer for pull in self._active)
        for i, pull in enumerate(self._queued):
            if posted[pull.job.peer] < READS_MAX:
                del self._queued[i]
                return pull
        return None

    def _accept(self, agent: Agent, job: PullJob) -> None:
        packed = job.codec is not Codec.NONE
        try:
            regions = self._peers.begin_read(job.peer, packed=packed)
        except TransferFailed as exc:
            self._fail(job, str(exc))
            return
        if not packed:
            self._queued.append(Pull(job, self._memory, regions, self._arrivals))
            return
        decoder, first_place = self._decoder, self._memory.blocks
        assert decoder is not None, f"{job.id} is packed, which nobody here can unpack"
        slots = decoder.take(len(job.local_blocks))
        if slots is None:
            self._peers.end_read(agent, job.peer, failed=False)
            self._fail(job, "no room to unpack so many blocks")
            return
        pull = Pull(job, decoder.memory, regions, self._arrivals, slots, first_place)
        self._queued.append(pull)

    def _start(self, agent: Agent, pull: Pull) -> None:
        peer = pull.job.peer
        try:
            pull.check()
            self._peers.introduce(agent, peer)
            pull.started_s = self._clock.now_s()
            allowed_s = self._config.wait_s + pull.bytes / self._config.expected_bytes_per_s
            pull.deadline_s = pull.started_s + allowed_s
            pull.start(agent)
            self._pace.expect()
        except TransferFailed as exc:
            self._give_up(agent, pull, str(exc), failed=True)
            return
        self._active.append(pull)

    def _still_active(self, agent: Agent, pull: Pull) -> bool:
        job, phase = pull.job, pull.phase
        try:
            done = pull.advance(agent)
        except TransferFailed as exc:
            self._give_up(agent, pull, str(exc), failed=not pull.was_stale)
            return False
        if done:
            self._finish(agent, pull)
            return False
        if pull.phase is not phase:
            self._pace.expect()
        taken_s = self._clock.now_s() - pull.started_s
        if self._clock.now_s() < pull.deadline_s:
            return True
        logger.warning("%s: a read from %s is late; its blocks go to quarantine", job.id, job.peer)
        self._linger(pull, f"not here after {taken_s:.1f} s")
        return False

    def _give_up(self, agent: Agent, pull: Pull, reason: str, *, failed: bool) -> None:
        """A read has ended badly, or was never posted; those from other ranks may go on."""
        if pull.reads:
            self._linger(pull, reason)
        else:
            self._end(agent, pull, failed=failed)
            self._fail(pull.job, reason)

    def _linger(self, pull: Pull, reason: str) -> None:
        self._lingering.append(pull)
        self._deliver(PullFailed(pull.job.id, reason, in_flight=True))

    def _finish(self, agent: Agent, pull: Pull) -> None:
        job, read_s = pull.job, self._clock.now_s() - pull.started_s
        taken_s = read_s
        if pull.slots:
            assert self._decoder is not None
            self._decoder.decode(pull.slots, job.local_blocks, job.codec)
            taken_s = self._clock.now_s() - pull.started_s
        self._end(agent, pull, failed=False)
        self._over += 1
        self._deliver(Pulled(job.id, pull.bytes, taken_s, job.codec, taken_s - read_s))

    def _still_lingering(self, agent: Agent, pull: Pull) -> bool:
        if not pull.linger():
            return True
        self._end(agent, pull, failed=True)
        self._over += 1
        self._deliver(Settled(pull.job.id))
        return False

    def _end(self, agent: Agent, pull: Pull, *, failed: bool) -> None:
        """Nothing of this pull is in flight any more, or nothing ever was."""
        if self._decoder is not None:
            self._decoder.give_back(pull.slots)
        self._peers.end_read(agent, pull.job.peer, failed=failed)

    def _fail(self, job: PullJob, reason: str) -> None:
        self._over += 1
        self._deliver(PullFailed(job.id, reason, in_flight=False))
