"""A pull from a peer whose heads are shared out, over both backends, and what becomes of it when one rank's read fails."""

import queue
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.transfer.base import (
    HeadShare,
    JobId,
    Memory,
    OpenAgent,
    Pulled,
    PullFailed,
    PullJob,
    Settled,
    TransferEvent,
)
from tercet.workers.transfer.fake import FakeNetwork, Fault
from tercet.workers.transfer.thread import TransferThread

BLOCKS, PLANES, HEADS, HEAD_BYTES = 16, 4, 4, 64
CONFIG = TransferConfig(wait_s=0.5, net_devices="lo")


class Rank:
    """One rank's part of a pool, and its transfer."""

    def __init__(self, name: str, open_agent: OpenAgent, rank: int, ranks: int) -> None:
        self.pool = np.zeros((BLOCKS, PLANES, HEADS // ranks, HEAD_BYTES), dtype=np.uint8)
        self.generations = np.full(BLOCKS, 7, dtype=np.uint64)
        self.events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        share = HeadShare(rank, ranks, PLANES, HEADS)
        words = self.generations.ctypes.data
        memory = Memory(self.pool.ctypes.data, self.pool[0].nbytes, BLOCKS, words, share=share)
        self.transfer = TransferThread(
            name, memory, CONFIG, open_agent, self.events.put, lambda exc: self.events.put(exc)
        )
        self.transfer.start()


class Two:
    """A source of two ranks and a destination of one that knows it."""

    def __init__(self, open_agent: OpenAgent) -> None:
        self.sources = [Rank(name, open_agent, r, 2) for r, name in enumerate(("s:1", "s:1/1"))]
        self.destination = Rank("d:1", open_agent, 0, 1)
        whole = (BLOCKS, PLANES, HEADS, HEAD_BYTES)
        self.content = np.random.default_rng(0).integers(1, 255, whole, dtype=np.uint8)
        for part, source in zip(np.split(self.content, 2, axis=2), self.sources, strict=True):
            source.pool[:] = part
        first, second = (source.transfer.region for source in self.sources)
        self.destination.transfer.add_peer("s:1", first, others=(second,))

    def pull(self, word: int = 7) -> TransferEvent:
        number = self.destination.transfer.unsettled + int(self.destination.pool.any())
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), number), "s:1",
            (BlockId(3), BlockId(9)), (BlockId(5), BlockId(6)), (word, word),
        )  # fmt: skip
        self.destination.transfer.pull(job)
        return self.destination.events.get(timeout=60)

    def close(self) -> None:
        for rank in (*self.sources, self.destination):
            rank.transfer.stop()
            assert rank.events.empty()


@pytest.fixture
def make() -> Iterator[Callable[[OpenAgent], Two]]:
    made: list[Two] = []

    def two(open_agent: OpenAgent) -> Two:
        made.append(Two(open_agent))
        return made[-1]

    yield two
    for each in made:
        each.close()


def test_heads_are_gathered_from_both_ranks_under_the_words_of_rank_0(make, open_agent):
    two = make(open_agent)
    event = two.pull()
    assert isinstance(event, Pulled)
    assert event.bytes == 2 * PLANES * HEADS * HEAD_BYTES
    assert (two.destination.pool[[5, 6]] == two.content[[3, 9]]).all()
    assert not np.delete(two.destination.pool, [5, 6], axis=0).any()
    two.sources[0].generations[9] += 1
    failed = two.pull()
    assert isinstance(failed, PullFailed)
    assert failed.reason == "1 of 2 blocks were reused while they were read"


def test_a_rank_of_two_pulls_whole_blocks_from_its_like_under_the_words_of_rank_0(make, open_agent):
    two = make(open_agent)
    like = Rank("d:2/1", open_agent, 1, 2)
    first, second = (source.transfer.region for source in two.sources)
    like.transfer.add_peer("s:1", first, others=(second,))
    two.sources[1].generations[:] = 0  # nobody looks at these
    like.transfer.pull(
        PullJob(JobId(RequestId("r"), Epoch(1), 1), "s:1", (BlockId(3),), (BlockId(5),), (7,))
    )
    assert isinstance(like.events.get(timeout=60), Pulled)
    assert (like.pool[5] == two.sources[1].pool[3]).all()
    like.transfer.stop()


def test_one_ranks_failure_leaves_the_blocks_in_flight_until_the_others_read_has_ended(make):
    network = FakeNetwork()
    two = make(network.backend())
    network.faults += [Fault(failure="broken"), Fault(delay_s=0.3)]
    failed = two.pull()
    assert isinstance(failed, PullFailed)
    assert (failed.reason, failed.in_flight) == ("broken", True)
    assert not two.destination.pool.any(), "the other read had not ended"
    assert two.destination.events.get(timeout=60) == Settled(failed.job)
    assert two.destination.transfer.unsettled == 0
    assert isinstance(two.pull(), Pulled), "its ranks were introduced anew"


def test_a_rank_that_is_gone_fails_the_pull_but_ends_no_read_from_the_others(make):
    two = make(FakeNetwork().backend())
    assert isinstance(two.pull(), Pulled)
    two.sources[1].transfer.stop()
    failed = two.pull()
    assert isinstance(failed, PullFailed)
    assert failed.reason == "reading from s:1/1: disconnected"
    assert failed.in_flight
    assert two.destination.events.get(timeout=60) == Settled(failed.job)
