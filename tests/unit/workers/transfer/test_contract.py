"""What every transfer backend must do, and what the thread around it must make of every kind of failure."""

import time

import numpy as np
import pytest

from tercet.config import TransferConfig
from tercet.errors import TransferFailed
from tercet.workers.transfer.base import Memory, Pulled, PullFailed, Settled
from tercet.workers.transfer.fake import Fault
from tercet.workers.transfer.thread import READS_MAX, TransferThread


def test_a_pull_copies_the_blocks_it_names_and_no_others(pair):
    local, remote = [3, 4, 9, 2], [7, 8, 9, 1]
    job = pair.pull(local, remote)
    event = pair.destination.event()
    assert isinstance(event, Pulled)
    assert (event.job, event.bytes) == (job, 4 * 4096)
    assert 0 < event.seconds < 5
    assert (pair.destination.pool[local] == pair.source.pool[remote]).all()
    untouched = np.setdiff1d(np.arange(64), local)
    assert not pair.destination.pool[untouched].any()


def test_many_pulls_at_once_all_arrive(pair):
    jobs = {pair.pull([block], [63 - block]) for block in range(64)}
    for _ in range(64):
        event = pair.destination.event()
        assert isinstance(event, Pulled)
        jobs.remove(event.job)
    assert not jobs
    assert (pair.destination.pool == pair.source.pool[::-1]).all()


def test_a_block_reused_since_it_was_published_is_not_admitted(pair):
    job = pair.pull([0, 1, 2], [5, 6, 7])
    assert isinstance(pair.destination.event(), Pulled)
    before = [int(word) for word in pair.source.generations]
    pair.source.generations[6] += 1
    pair.source.generations, published = np.array(before, np.uint64), pair.source.generations
    job = pair.pull([0, 1, 2], [5, 6, 7])
    assert pair.destination.event() == PullFailed(
        job, "1 of 3 blocks were reused while they were read", in_flight=False
    )
    pair.source.generations = published
    pair.pull([0, 1, 2], [5, 6, 7])
    assert isinstance(pair.destination.event(), Pulled)


def test_a_peer_nobody_introduced_is_a_failure_not_a_crash(pair):
    job = pair.pull([0], [0], peer="stranger:1")
    assert pair.destination.event() == PullFailed(
        job, "stranger:1 is not known here", in_flight=False
    )


def test_a_block_the_peer_does_not_have_is_refused_before_anything_is_posted(pair):
    pair.pull([0], [64])
    event = pair.destination.event()
    assert isinstance(event, PullFailed)
    assert "has 64 blocks only" in event.reason
    assert not event.in_flight


def test_pools_of_unlike_blocks_do_not_mix(pair):
    other = pair.side("other:1", block_bytes=8192)
    pair.destination.transfer.add_peer("other:1", other.transfer.region)
    pair.pull([0], [0], peer="other:1")
    event = pair.destination.event()
    assert isinstance(event, PullFailed)
    assert "8192 bytes do not fit 4096" in event.reason


def test_a_removed_peer_is_unknown_and_can_come_back(pair):
    pair.pull([0], [0])
    assert isinstance(pair.destination.event(), Pulled)
    pair.destination.transfer.remove_peer("source:1")
    pair.destination.transfer.remove_peer("source:1")
    pair.pull([0], [0])
    assert isinstance(pair.destination.event(), PullFailed)
    pair.destination.transfer.add_peer("source:1", pair.source.transfer.region)
    pair.pull([1], [1])
    assert isinstance(pair.destination.event(), Pulled)


def test_a_stopped_peer_fails_the_pull_and_its_next_life_works(pair):
    pair.pull([0], [0])
    assert isinstance(pair.destination.event(), Pulled)
    pair.source.transfer.stop()
    pair.pull([1], [1])
    event = pair.destination.event(10)
    assert isinstance(event, PullFailed)
    if event.in_flight:
        assert pair.destination.event(10) == Settled(event.job)
    pair.destination.transfer.remove_peer("source:1")
    successor = pair.side("source:2")
    successor.fill(seed=2)
    pair.destination.transfer.add_peer("source:2", successor.transfer.region)
    pair.pull([2], [2], peer="source:2")
    assert isinstance(pair.destination.event(), Pulled)
    assert (pair.destination.pool[2] == successor.pool[2]).all()


def test_both_directions_work_at_once(pair):
    pair.source.transfer.add_peer("destination:1", pair.destination.transfer.region)
    pair.destination.pool[40] = 9
    pair.pull([0], [0])
    reverse = pair.pull([1], [1])
    assert {pair.destination.event().job.number for _ in range(2)} == {0, reverse.number}


# ---- failures only the fake can be asked for -------------------------------------------------------------------------


def test_a_late_read_is_quarantined_until_it_has_ended(faulty, network):
    network.faults.append(Fault(delay_s=1.2))
    began_s = time.monotonic()
    job = faulty.pull([5], [5])
    event = faulty.destination.event()
    assert isinstance(event, PullFailed)
    assert (event.job, event.in_flight) == (job, True)
    assert 0.5 <= time.monotonic() - began_s < 1.0
    assert faulty.destination.transfer.unsettled == 1
    assert not faulty.destination.pool[5].any(), "the read is still to land"
    assert faulty.destination.event() == Settled(job)
    assert faulty.destination.pool[5].any()


def test_a_late_read_does_not_hold_up_others(faulty, network):
    network.faults.append(Fault(delay_s=1.0))
    late = faulty.pull([5], [5])
    quick = faulty.pull([6], [6])
    assert faulty.destination.event().job == quick
    assert [faulty.destination.event().job for _ in range(2)] == [late, late]


def test_a_peer_that_does_not_answer_does_not_hold_up_pulls_from_others(faulty, network):
    other = faulty.side("other:1")
    faulty.destination.transfer.add_peer("other:1", other.transfer.region)
    network.faults.extend(Fault(delay_s=1.0) for _ in range(READS_MAX))
    for block in range(2 * READS_MAX):
        faulty.pull([block], [block])
    quick = faulty.pull([60], [60], peer="other:1")
    assert faulty.destination.event().job == quick
    endings = [faulty.destination.event() for _ in range(3 * READS_MAX)]
    assert sum(isinstance(ending, Pulled) for ending in endings) == READS_MAX


def test_a_failed_read_makes_the_peer_be_introduced_anew(faulty, network):
    network.faults.append(Fault(failure="cable cut"))
    job = faulty.pull([5], [5])
    assert faulty.destination.event() == PullFailed(job, "cable cut", in_flight=False)
    faulty.pull([5], [5])
    assert isinstance(faulty.destination.event(), Pulled)


def test_a_block_overwritten_during_the_read_is_caught(faulty, network):
    def reuse():
        faulty.source.generations[5] += 1
        faulty.source.pool[5] = 0

    network.faults.append(Fault(delay_s=0.05, meanwhile=reuse))
    faulty.pull([5], [5])
    event = faulty.destination.event()
    assert isinstance(event, PullFailed)
    assert "reused while they were read" in event.reason


def test_a_peer_is_not_forgotten_under_a_read_in_flight(faulty, network):
    network.faults.append(Fault(delay_s=0.3))
    job = faulty.pull([5], [5])
    faulty.destination.transfer.remove_peer("source:1")
    event = faulty.destination.event()
    assert isinstance(event, Pulled)
    assert event.job == job
    faulty.pull([6], [6])
    assert isinstance(faulty.destination.event(), PullFailed)


def test_an_agent_that_cannot_be_opened_fails_the_start():
    def refuse(name, memory, arrivals, staging):
        raise TransferFailed("no such device")

    thread = TransferThread("x:1", Memory(0, 1, 1, 0), TransferConfig(), refuse, print, print)
    with pytest.raises(TransferFailed, match="no such device"):
        thread.start()
    thread.stop()
