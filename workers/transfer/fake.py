"""A backend within one process: copies memory by address, after whatever delay or failure a test asks for."""

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tercet.clock import MonotonicClock
from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Kind, Memory, OpenAgent, Spans, Words


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one read of blocks. Without arguments: nothing."""

    delay_s: float = 0.0
    """The bytes are copied this late, as a slow network would."""
    failure: str = ""
    """The read ends badly, without having copied anything."""
    meanwhile: Callable[[], None] | None = None
    """Called once the bytes have been copied: what the source does while a reader believes itself alone."""


@dataclass(slots=True)
class FakeNetwork:
    """Who can be reached, and the faults of the next reads of blocks, first one first."""

    members: dict[str, Memory] = field(default_factory=dict)
    faults: deque[Fault] = field(default_factory=deque)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def backend(self) -> OpenAgent:
        """Agents on this network."""

        def open_agent(
            name: str, memory: Memory, arrivals: Words, staging: Sequence[Memory]
        ) -> FakeAgent:
            return FakeAgent(name, memory, self)

        return open_agent

    def next_fault(self) -> Fault:
        with self.lock:
            return self.faults.popleft() if self.faults else Fault()


class FakeAgent:
    """An `Agent` whose peers live in the same process."""

    def __init__(self, name: str, memory: Memory, network: FakeNetwork) -> None:
        self._name = name
        self._network = network
        self._peers: set[str] = set()
        network.members[name] = memory

    @property
    def metadata(self) -> bytes:
        return self._name.encode()

    def add_peer(self, peer: str, region: KvRegion) -> None:
        if region.agent.decode() != peer:
            raise TransferFailed(f"{peer} calls itself {region.agent.decode()}")
        if peer not in self._network.members:
            raise TransferFailed(f"reaching {peer}: nobody there")
        assert peer not in self._peers, f"{peer} was introduced twice"
        self._peers.add(peer)

    def remove_peer(self, peer: str) -> None:
        self._peers.remove(peer)

    def read(self, peer: str, kind: Kind, spans: Spans) -> "FakeRead":
        assert peer in self._peers, f"{peer} was not introduced"
        if peer not in self._network.members:
            raise TransferFailed(f"reading from {peer}: disconnected")
        fault = self._network.next_fault() if kind is Kind.BLOCKS else Fault()
        return FakeRead(self._network, peer, spans, fault)

    def progress(self) -> None:
        """Nobody needs our help."""

    def close(self) -> None:
        self._network.members.pop(self._name, None)


class FakeRead:
    """Copies when its time has come, in one go."""

    def __init__(self, network: FakeNetwork, peer: str, spans: Spans, fault: Fault) -> None:
        self._network = network
        self._peer = peer
        self._spans = spans
        self._fault = fault
        self._clock = MonotonicClock()
        self._due_s = self._clock.now_s() + fault.delay_s

    def done(self) -> bool:
        if self._clock.now_s() < self._due_s:
            return False
        if self._fault.failure:
            raise TransferFailed(self._fault.failure)
        if self._peer not in self._network.members:
            raise TransferFailed(f"reading from {self._peer}: disconnected")
        for local, remote, length in self._spans.tolist():
            ctypes.memmove(local, remote, length)
        if self._fault.meanwhile is not None:
            self._fault.meanwhile()
        return True
