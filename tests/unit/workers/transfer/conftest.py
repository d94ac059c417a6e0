"""Two transfers that can read from each other, over either backend, with memory of their own."""

import queue
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.transfer.base import (
    JobId,
    Memory,
    OpenAgent,
    PullJob,
    TransferEvent,
)
from tercet.workers.transfer.fake import FakeNetwork
from tercet.workers.transfer.nixl import nixl_backend
from tercet.workers.transfer.thread import TransferThread

BLOCKS = 64
BLOCK_BYTES = 4096
CONFIG = TransferConfig(wait_s=0.5, net_devices="lo")


class Side:
    """One worker's pool, generation words and transfer."""

    def __init__(self, name: str, open_agent: OpenAgent, block_bytes: int = BLOCK_BYTES) -> None:
        self.name = name
        self.pool = np.zeros((BLOCKS, block_bytes), dtype=np.uint8)
        self.generations = np.ones(BLOCKS, dtype=np.uint64)
        self.events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        self.crashes: list[BaseException] = []
        memory = Memory(self.pool.ctypes.data, block_bytes, BLOCKS, self.generations.ctypes.data)
        self.transfer = TransferThread(
            name, memory, CONFIG, open_agent, self.events.put, self.crashes.append
        )
        self.transfer.start()

    def fill(self, seed: int = 0) -> None:
        self.pool[:] = np.random.default_rng(seed).integers(1, 255, self.pool.shape, dtype=np.uint8)

    def event(self, timeout_s: float = 5.0) -> TransferEvent:
        return self.events.get(timeout=timeout_s)

    def settle(self) -> None:
        """Waits for the counters to follow the last event."""
        until_s = time.monotonic() + 5
        while self.transfer.unsettled and time.monotonic() < until_s:
            time.sleep(0.001)
        assert self.transfer.unsettled == 0


class Pair:
    """A destination that knows a source."""

    def __init__(self, open_agent: OpenAgent, network: FakeNetwork) -> None:
        self.open_agent = open_agent
        self.network = network
        self.sides: list[Side] = []
        self.numbers = iter(range(1000))
        self.source = self.side("source:1")
        self.source.fill()
        self.destination = self.side("destination:1")
        self.destination.transfer.add_peer("source:1", self.source.transfer.region)

    def side(self, name: str, block_bytes: int = BLOCK_BYTES) -> Side:
        self.sides.append(Side(name, self.open_agent, block_bytes))
        return self.sides[-1]

    def pull(self, local: list[int], remote: list[int], peer: str = "source:1") -> JobId:
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), next(self.numbers)),
            peer,
            tuple(BlockId(block) for block in remote),
            tuple(BlockId(block) for block in local),
            tuple(int(self.source.generations[block % BLOCKS]) for block in remote),
        )
        self.destination.transfer.pull(job)
        return job.id


@pytest.fixture
def network() -> FakeNetwork:
    return FakeNetwork()


@pytest.fixture(params=["fake", "nixl"])
def open_agent(request: pytest.FixtureRequest, network: FakeNetwork) -> OpenAgent:
    backend: Callable[[], OpenAgent] = {
        "fake": network.backend,
        "nixl": lambda: nixl_backend(CONFIG),
    }[request.param]
    return backend()


@pytest.fixture
def pair(open_agent: OpenAgent, network: FakeNetwork) -> Iterator[Pair]:
    yield from _ending(Pair(open_agent, network))


@pytest.fixture
def faulty(network: FakeNetwork) -> Iterator[Pair]:
    """Over the fake backend, whose `network.faults` a test may fill."""
    yield from _ending(Pair(network.backend(), network))


def _ending(pair: Pair) -> Iterator[Pair]:
    yield pair
    for side in pair.sides:
        assert not side.crashes
        side.settle()
        side.transfer.stop()
        assert side.events.empty()
    assert not pair.network.members
