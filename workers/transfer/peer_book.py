"""Which peers an agent has been told of, and when it may be told otherwise: never while a read from them is in flight."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Agent, Memory
from tercet.workers.transfer.heads import needed_ranks, rank_agent

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Peer:
    regions: tuple[KvRegion, ...]
    """Of its ranks."""
    staged: KvRegion | None
    agents: dict[str, KvRegion]
    """Of those ranks that are read from."""
    introduced: list[str] = field(default_factory=list)
    """Which of them the agent knows."""
    reads: int = 0
    leaving: bool = False
    failed: bool = False
    """A read failed: backends refuse a failed peer until they are told of it anew."""


class PeerBook:
    """The peers of one agent; used by the agent's thread only."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._peers: dict[str, _Peer] = {}

    def add(
        self, agent: Agent, name: str, regions: Sequence[KvRegion], staged: KvRegion | None
    ) -> None:
        """Idempotent; takes back an earlier `remove` that has not happened yet.

        The agent is told at once, so that the first pull need not wait for connections to be made. Should that fail it is
        tried again then.
        """
        ranks = needed_ranks(self._memory, len(regions))
        agents = {rank_agent(name, rank): regions[rank] for rank in ranks}
        peer = self._peers.setdefault(name, _Peer(tuple(regions), staged, agents))
        peer.leaving = False
        try:
            self.introduce(agent, name)
        except TransferFailed as exc:
            logger.warning("%s", exc)

    def remove(self, agent: Agent, name: str) -> None:
        """Forget the peer, at the latest when its last read has ended. Idempotent."""
        if name in self._peers:
            self._peers[name].leaving = True
            self._part(agent, name)

    def begin_read(self, name: str, *, packed: bool) -> tuple[KvRegion, ...]:
        """Keep the peer known for one read from the regions returned; raises `TransferFailed` when it is unknown or leaving."""
        peer = self._peers.get(name)
        if peer is None or peer.leaving:
            raise TransferFailed(f"{name} is not known here")
        if packed and peer.staged is None:
            raise TransferFailed(f"{name} has no packed blocks")
        peer.reads += 1
        return (peer.staged,) if packed and peer.staged else peer.regions

    def introduce(self, agent: Agent, name: str) -> None:
        """Make sure the agent knows the peer; raises `TransferFailed` when it cannot be reached."""
        peer = self._peers[name]
        for rank, region in peer.agents.items():
            if rank not in peer.introduced:
                agent.add_peer(rank, region)
                peer.introduced.append(rank)

    def end_read(self, agent: Agent, name: str, *, failed: bool) -> None:
        """A read counted by `begin_read` has ended, or was never posted."""
        peer = self._peers[name]
        peer.reads -= 1
        peer.failed |= failed
        self._part(agent, name)

    def _part(self, agent: Agent, name: str) -> None:
        peer = self._peers[name]
        if peer.reads or not (peer.leaving or peer.failed):
            return
        for rank in peer.introduced:
            agent.remove_peer(rank)
        peer.introduced, peer.failed = [], False
        if peer.leaving:
            del self._peers[name]
