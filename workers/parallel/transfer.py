"""The transfer of a worker of several ranks: each pulls its own heads, with an agent of its own, and rank 0 speaks for all."""

import threading
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from tercet.config import TransferConfig
from tercet.errors import PeerLost
from tercet.wire import KvRegion
from tercet.workers.parallel.follower import Follower
from tercet.workers.parallel.joint_pulls import JointPulls
from tercet.workers.parallel.orders import AddPeer, ExpectReaders, OpenTransfer, RemovePeer
from tercet.workers.transfer.base import Deliver, Memory, OpenAgent, PullJob, TransferEvent
from tercet.workers.transfer.heads import rank_agent
from tercet.workers.transfer.thread import TransferThread


class ParallelTransfer:
    """A `Transfer`; see `TransferThread`. `deliver` is called on any thread, by one at a time."""

    staged: KvRegion | None = None

    def __init__(
        self,
        name: str,
        memory: Memory,
        config: TransferConfig,
        open_agent: OpenAgent,
        deliver: Deliver,
        crashed: Callable[[BaseException], None],
        followers: Sequence[Follower],
    ) -> None:
        self._name, self._config = name, config
        self._deliver, self._crashed = deliver, crashed
        self._followers = followers
        self._own = TransferThread(
            name, memory, config, open_agent, partial(self._hear, 0), crashed
        )
        self._pulls = JointPulls(1 + len(followers))
        self._hearing = threading.Lock()
        self._read = False
        self.others: tuple[KvRegion, ...] = ()

    def start(self) -> None:
        """Open all agents; blocks. Raises what a backend raised, with none of ours open."""
        self._own.start()
        try:
            self.others = tuple(self._open(rank) for rank in range(1, 1 + len(self._followers)))
        except BaseException:
            self._own.stop()
            raise

    def stop(self) -> None:
        """End our own thread; those of followers end with them. Idempotent."""
        self._own.stop()

    @property
    def region(self) -> KvRegion:
        return self._own.region

    @property
    def unsettled(self) -> int:
        return len(self._pulls)

    def add_peer(
        self,
        peer: str,
        region: KvRegion,
        staged: KvRegion | None = None,
        others: Sequence[KvRegion] = (),
    ) -> None:
        self._own.add_peer(peer, region, staged, others)
        self._tell(AddPeer(peer, region, tuple(others)))

    def remove_peer(self, peer: str) -> None:
        self._own.remove_peer(peer)
        self._tell(RemovePeer(peer))

    def pull(self, job: PullJob) -> None:
        with self._hearing:
            self._pulls.begin(job.id)
        self._own.pull(job)
        self._tell(job)

    def expect_readers(self, readers: int) -> None:
        self._own.expect_readers(readers)
        if self._read != (readers > 0):  # it is said after every message of a reader
            self._read = readers > 0
            self._tell(ExpectReaders(readers))

    def _open(self, rank: int) -> KvRegion:
        follower = self._followers[rank - 1]
        follower.on_transfer = partial(self._hear, rank)
        return follower.open_transfer(OpenTransfer(rank_agent(self._name, rank), self._config))

    def _hear(self, rank: int, event: TransferEvent) -> None:
        with self._hearing:
            said = self._pulls.hear(rank, event)
            if said is not None:
                self._deliver(said)

    def _tell(self, order: msgspec.Struct) -> None:
        """A follower that is gone has ended the worker, or is about to: no pull is answered any more."""
        try:
            for follower in self._followers:
                follower.word.send(order)
        except PeerLost as exc:
            self._crashed(exc)
