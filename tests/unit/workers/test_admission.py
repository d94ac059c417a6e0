"""Who may join the batch, and what becomes of those who were let in."""

import itertools

import numpy as np
import pytest

from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.admission import ADMISSIONS, LENGTHS_MIN
from tercet.workers.block_pool import BlockPool
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence

BLOCK_TOKENS = 4


class Hall:
    """A scheduler with one way of admitting, and outputs that end when they have as many tokens as they were given."""

    def __init__(self, admission: str, blocks: int = 40) -> None:
        config = EngineConfig(
            block_tokens=BLOCK_TOKENS,
            step_tokens_max=256,
            running_max=32,
            waiting_max=1000,
            admission=admission,
        )
        self.pool = BlockPool(blocks, np.zeros(blocks, dtype=np.uint64))
        self.scheduler = Scheduler(config, self.pool)
        self.preemptions = 0
        self._lengths: dict[Sequence, int] = {}
        self._arrivals = itertools.count()

    def add(self, prompt: int, output: int, *, most: int, first: int = 0) -> Sequence:
        """Its prompt is like no other's unless `first` is the same."""
        arrival = next(self._arrivals)
        tokens = [first or 1000 + arrival, *[1] * (prompt - 1)]
        spec = RequestSpec(RequestId(f"r{arrival}"), tokens, Sampling(most))
        sequence = Sequence(spec, FIRST_EPOCH, "f", arrival, list(tokens))
        self._lengths[sequence] = output
        assert self.scheduler.enqueue(sequence) is None
        return sequence

    def step(self) -> int:
        """Returns how many took part."""
        batch = self.scheduler.schedule()
        for chunk in batch.chunks:
            sequence, completes = chunk.sequence, chunk.completes
            self.scheduler.advance(sequence, sequence.computed + chunk.tokens)
            if completes:
                sequence.tokens.append(1)
                if sequence.output_tokens == self._lengths[sequence]:
                    self.scheduler.remove(sequence)
                    self.preemptions += sequence.preemptions
        self.scheduler.check_integrity()
        return len(batch.chunks)

    def serve_all(self) -> int:
        """Returns the steps it took."""
        for steps in itertools.count():
            if not self.step():
                assert not self.scheduler.waiting, "nobody runs, and somebody waits for ever"
                return steps
        raise AssertionError

    def learn(self, output: int) -> None:
        for _ in range(LENGTHS_MIN):
            self.add(4, output, most=1000)
            self.serve_all()
        self.preemptions = 0


@pytest.mark.parametrize("admission", ADMISSIONS)
def test_whoever_is_alone_is_let_in_whatever_it_may_become(admission: str) -> None:
    hall = Hall(admission)
    hall.learn(100)
    alone = hall.add(16, 8, most=10_000)
    assert hall.step() == 1
    assert alone.phase is Phase.RUNNING


def test_in_the_worst_case_only_those_join_who_fit_at_their_longest() -> None:
    hall = Hall("worst_case")
    first = hall.add(16, 8, most=65)  # 80 tokens with KV: 20 blocks of 40
    second = hall.add(16, 8, most=65)
    third = hall.add(20, 1, most=1)
    hall.step()
    assert [s.phase for s in (first, second)] == [Phase.RUNNING, Phase.RUNNING]
    assert third.phase is Phase.WAITING, "32 blocks are free, and all are promised"
    hall.serve_all()
    assert hall.preemptions == 0


@pytest.mark.parametrize(("admission", "together"), [("aggressive", 8), ("past_future", 3)])
def test_what_ended_before_tells_how_many_fit(admission: str, together: int) -> None:
    """Forty blocks, less two in reserve; each comes with one and becomes twelve, as those before it have."""
    hall = Hall(admission)
    hall.learn(45)
    for _ in range(8):
        hall.add(4, 45, most=1000)
    assert hall.step() == together
    hall.serve_all()
    assert (hall.preemptions > 0) is (admission == "aggressive")


def test_one_more_is_let_in_when_it_will_be_small_while_the_others_end() -> None:
    hall = Hall("past_future")
    hall.learn(45)
    running = [hall.add(4, 45, most=1000) for _ in range(3)]
    late = hall.add(4, 45, most=1000)
    waited = 0
    while late.phase is Phase.WAITING:
        hall.step()
        waited += 1
    assert waited > 4
    assert [s.phase for s in running] == [Phase.RUNNING] * 3
    hall.serve_all()
    assert hall.preemptions == 0


def test_outputs_that_grow_are_let_in_more_carefully() -> None:
    hall = Hall("past_future")
    hall.learn(5)
    for _ in range(16):
        hall.add(4, 5, most=1000)
    assert hall.step() == 16
    hall.serve_all()
    for _ in range(16):
        hall.learn(45)
    for _ in range(16):
        hall.add(4, 45, most=1000)
    assert hall.step() == 3


def test_a_prefix_that_is_shared_counts_once() -> None:
    hall = Hall("past_future", blocks=48)
    hall.learn(5)
    for _ in range(8):
        hall.add(81, 5, most=1000, first=7)
        hall.step()
    assert len(hall.scheduler.running) > 3
    assert hall.pool.used < 48
    hall.serve_all()
    assert hall.preemptions == 0


def test_what_was_cancelled_is_learned_from_and_what_moved_away_is_not() -> None:
    hall = Hall("past_future")
    for _ in range(LENGTHS_MIN):
        cancelled = hall.add(4, 100, most=1000)
        for _ in range(45):
            hall.step()
        hall.scheduler.remove(cancelled)
    moved = hall.add(4, 100, most=1000)
    hall.step()
    hall.scheduler.hold(moved)
    hall.scheduler.remove(moved)
    for _ in range(8):
        hall.add(4, 45, most=1000)
    assert hall.step() == 3
    for sequence in list(hall.scheduler.running) + list(hall.scheduler.waiting):
        hall.scheduler.remove(sequence)
