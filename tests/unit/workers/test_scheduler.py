"""Scheduling as stories: who runs, in which order, with how many tokens, and who gives way when blocks run out."""

import itertools
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.batch import Batch
from tercet.workers.block_pool import BlockPool
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence


class Stage:
    """A scheduler, and a model that computes whatever it is told to."""

    made: ClassVar[list["Stage"]] = []

    def __init__(
        self,
        *,
        blocks: int = 16,
        step: int = 64,
        running: int = 8,
        waiting: int = 8,
        retention_s: float = 0.0,
        stretch: float = 8.0,
    ):
        config = EngineConfig(
            block_tokens=4,
            step_tokens_max=step,
            running_max=running,
            waiting_max=waiting,
            retention_s_max=retention_s,
            prefill_stretch_max=stretch,
        )
        self.pool = BlockPool(blocks, np.zeros(blocks, dtype=np.uint64), retained_max=blocks)
        self.scheduler = Scheduler(config, self.pool)
        self._arrivals = itertools.count()
        self.made.append(self)

    def make(
        self,
        prompt: int,
        *,
        first: int = 0,
        priority: int = 0,
        hand_off: bool = False,
        kv_ttl_s: float = 0.0,
        session: str = "",
    ) -> Sequence:
        """A sequence whose prompt is `first, first + 1, …`: unlike any other unless `first` is the same."""
        arrival = next(self._arrivals)
        start = first or 1000 * (arrival + 1)
        tokens = list(range(start, start + prompt))
        spec = RequestSpec(
            RequestId(f"r{arrival}"),
            tokens,
            Sampling(),
            priority,
            kv_ttl_s=kv_ttl_s,
            session=session,
        )
        return Sequence(spec, FIRST_EPOCH, "f", arrival, list(tokens), hand_off)

    def add(self, prompt: int, **options: Any) -> Sequence:
        sequence = self.make(prompt, **options)
        assert self.scheduler.enqueue(sequence) is None
        return sequence

    def step(self) -> Batch:
        batch = self.scheduler.schedule()
        for chunk in batch.chunks:
            completes = chunk.completes
            self.scheduler.advance(chunk.sequence, chunk.sequence.computed + chunk.tokens)
            if completes:
                chunk.sequence.tokens.append(7)
        self.scheduler.check_integrity()
        return batch


def plan(batch: Batch) -> list[tuple[str, int]]:
    return [(chunk.sequence.id, chunk.tokens) for chunk in batch.chunks]


@pytest.fixture(autouse=True)
def _everything_comes_back() -> Iterator[None]:
    Stage.made.clear()
    yield
    for stage in Stage.made:
        s = stage.scheduler
        for sequence in (*s.waiting, *s.running, *s.reserved, *s.held):
            s.remove(sequence)
        s.check_integrity()
        assert (stage.pool.used, stage.pool.free) == (0, stage.pool.blocks)


def test_a_long_prompt_is_computed_in_chunks_beside_the_decodes() -> None:
    stage = Stage(step=8)
    stage.add(3)
    assert plan(stage.step()) == [("r0", 3)]
    stage.add(20)
    assert [plan(stage.step()) for _ in range(4)] == [
        [("r0", 1), ("r1", 7)],
        [("r0", 1), ("r1", 7)],
        [("r0", 1), ("r1", 6)],
        [("r0", 1), ("r1", 1)],
    ]


def test_what_a_finishing_prefill_leaves_of_the_budget_goes_to_the_queue() -> None:
    stage = Stage(step=8)
    stage.add(10)
    stage.add(10)
    assert plan(stage.step()) == [("r0", 8)]
    assert plan(stage.step()) == [("r0", 2), ("r1", 6)]


def test_a_short_prompt_passes_long_ones_in_the_queue_and_under_way() -> None:
    stage = Stage(step=8, blocks=64)
    stage.add(20)
    stage.add(30)
    assert plan(stage.step()) == [("r0", 8)]
    stage.add(4)
    assert plan(stage.step()) == [("r2", 4), ("r0", 4)]
    assert plan(stage.step()) == [("r2", 1), ("r0", 7)]


def test_a_long_prompt_is_passed_until_a_multiple_of_its_own_prefill_is_done() -> None:
    stage = Stage(step=4, blocks=64, stretch=2.0)
    long = stage.add(16)
    passed = 0
    while long.computed == 0:
        short = stage.add(4)
        stage.step()
        passed += short.computed > 0
        stage.scheduler.remove(short)
    assert passed == 6, "with 24 of 2 x 16 tokens done it is as urgent as 4 that come now"


def test_a_chunk_longer_than_all_more_urgent_ones_does_not_make_them_wait_for_it() -> None:
    stage = Stage(step=4096, blocks=4096)
    stage.add(200)
    stage.add(500)
    stage.add(3000)
    assert plan(stage.step()) == [("r0", 200), ("r1", 500)]
    assert plan(stage.step()) == [("r0", 1), ("r1", 1), ("r2", 3000)]


def test_without_stretch_everybody_is_served_in_the_order_of_arrival() -> None:
    stage = Stage(step=8, blocks=64, stretch=0.0)
    stage.add(20)
    stage.add(4)
    assert [plan(stage.step()) for _ in range(3)] == [
        [("r0", 8)],
        [("r0", 8)],
        [("r0", 4), ("r1", 4)],
    ]


def test_a_preempted_request_whose_client_reads_passes_everybody_of_its_priority() -> None:
    stage = Stage(blocks=7)
    important = stage.add(4, priority=1)
    late = stage.add(10)
    stage.step()
    while not late.preemptions:
        stage.step()
    short = stage.add(2)
    stage.scheduler.remove(important)
    assert stage.step().begun == [late, short]


def test_the_queue_is_served_by_priority_and_then_by_arrival() -> None:
    stage = Stage(step=4, running=1)
    for priority in (0, 1, 0, 1):
        stage.add(4, priority=priority)
    order = []
    for _ in range(4):
        batch = stage.step()
        order.append(batch.begun[0].id)
        stage.scheduler.remove(batch.begun[0])
    assert order == ["r1", "r3", "r0", "r2"]


def test_one_request_too_many_is_refused_with_the_reason() -> None:
    stage = Stage(waiting=2)
    stage.add(4)
    stage.add(4)
    assert stage.scheduler.enqueue(stage.make(4)) == "2 requests are waiting already"


def test_no_more_run_at_once_than_there_are_places_or_tokens_in_a_step() -> None:
    stage = Stage(running=2, blocks=64)
    for _ in range(4):
        stage.add(4)
    stage.step()
    assert len(stage.scheduler.running) == 2
    narrow = Stage(running=8, step=3, blocks=64)
    for _ in range(8):
        narrow.add(1)
    narrow.step()
    assert len(narrow.scheduler.running) == 3, "every decode must move in every step"


def test_a_cached_prefix_is_shared_but_its_last_token_is_computed_again() -> None:
    stage = Stage()
    first = stage.add(8, first=100)
    stage.step()
    second = stage.add(8, first=100)
    third = stage.add(11, first=100)
    assert plan(stage.step())[1:] == [("r2", 3), ("r1", 4)]
    assert second.blocks[0] == third.blocks[0] == first.blocks[0]
    assert third.blocks[1] == first.blocks[1] != second.blocks[1]
    assert (second.cached_tokens, third.cached_tokens) == (4, 8)


def test_decoded_blocks_are_cached_too() -> None:
    stage = Stage()
    sequence = stage.add(3)
    for _ in range(6):
        stage.step()
    log = list(sequence.tokens)
    stage.scheduler.remove(sequence)
    follow_up = stage.make(1)
    follow_up.tokens = [*log, 5]
    assert stage.scheduler.enqueue(follow_up) is None
    stage.step()
    assert follow_up.registered_blocks == len(follow_up.tokens) // 4 == 2
    assert follow_up.blocks[:2] == stage.pool.lookup(follow_up.block_hashes(4))


def test_growing_preempts_the_latest_of_the_lowest_priority() -> None:
    stage = Stage(blocks=7)
    late = stage.make(10)
    important = stage.add(4, priority=1)
    for _ in range(4):
        stage.step()
    assert stage.scheduler.enqueue(late) is None
    batch = stage.step()
    while not late.preemptions:
        assert {late.phase, important.phase} == {Phase.RUNNING}
        batch = stage.step()
    assert plan(batch) == [(important.id, 1)]
    assert len(important.blocks) == 4, "it grew at the other one's cost"
    assert (late.phase, late.preemptions, late.blocks) == (Phase.WAITING, 1, [])
    stage.scheduler.remove(important)
    stage.step()
    assert late.phase is Phase.RUNNING, "there is room again"


def test_a_sequence_in_the_batch_is_not_preempted_for_one_that_comes_after_it() -> None:
    stage = Stage(blocks=5)
    pulled = stage.make(8, priority=1)
    decode = stage.add(4)
    stage.step()
    assert stage.scheduler.reserve(pulled) is None
    stage.step()
    for _ in range(2):  # up to the last slot of its second block, so that it need not grow
        stage.step()
    filler = stage.make(4, hand_off=True)
    stage.scheduler.advance(pulled, 6)  # less than was promised: a prefill that must grow
    pulled.tokens.append(7)
    stage.scheduler.start(pulled)
    filler.blocks = stage.pool.allocate(stage.pool.free) or []
    filler.phase = Phase.HELD
    stage.scheduler.held.add(filler)
    decode_before = decode.computed
    assert plan(stage.step()) == [(decode.id, 1)]
    assert decode.computed == decode_before + 1
    assert (pulled.phase, pulled.preemptions) == (Phase.WAITING, 1)


def test_a_preempted_sequence_computes_only_what_the_cache_has_lost() -> None:
    stage = Stage(blocks=7)
    late = stage.make(10)
    important = stage.add(4, priority=1)
    for _ in range(4):
        stage.step()
    assert stage.scheduler.enqueue(late) is None
    while not late.preemptions:
        stage.step()
    stage.scheduler.remove(important)
    kept = len(stage.pool.lookup(late.block_hashes(4)))
    assert kept >= 1
    assert plan(stage.step()) == [(late.id, len(late.tokens) - 1 - 4 * kept)]


def test_a_hand_off_is_never_preempted_because_its_blocks_are_being_read() -> None:
    stage = Stage(blocks=7, step=2)
    decode = stage.add(4)
    hand_off = stage.add(16, hand_off=True)
    while not decode.preemptions:
        stage.step()
    assert (decode.phase, hand_off.phase) == (Phase.WAITING, Phase.RUNNING)
    while hand_off.remaining > 1:
        assert {chunk.sequence for chunk in stage.step().chunks} == {hand_off}
    stage.scheduler.hold(hand_off)
    assert not stage.step().chunks, "nothing can run until the blocks are released"
    stage.scheduler.remove(hand_off)
    assert {chunk.sequence for chunk in stage.step().chunks} == {decode}


def test_one_that_needs_more_blocks_than_there_are_is_stuck_and_preempts_nobody() -> None:
    stage = Stage(blocks=2)
    greedy = stage.add(7)
    stage.step()
    stage.step()
    batch = stage.step()
    assert batch.stuck == [greedy]
    assert greedy.preemptions == 0


def test_admission_leaves_a_block_for_every_sequence_that_will_grow() -> None:
    stage = Stage(blocks=6)
    stage.add(4)
    stage.add(4)
    stage.step()
    stage.step()
    assert stage.pool.free == 2
    newcomer = stage.add(4)
    stage.step()
    assert newcomer.phase is Phase.WAITING, "one block would be free, but two sequences may grow"


def test_a_reservation_takes_the_cached_blocks_and_one_run_of_fresh_ones() -> None:
    stage = Stage()
    stage.scheduler.remove(stage.add(8, first=100))
    warm = stage.add(8, first=100)
    stage.step()
    reserved = stage.make(18, first=100)
    assert stage.scheduler.reserve(reserved) is None
    assert reserved.registered_blocks == 2
    assert reserved.blocks[:2] == warm.blocks[:2]
    fresh = reserved.blocks[2:]
    assert fresh == list(range(fresh[0], fresh[0] + 3))


def test_a_reservation_never_takes_what_running_requests_need() -> None:
    stage = Stage(blocks=4)
    stage.add(4)
    stage.step()
    stage.step()
    assert "too few" in (stage.scheduler.reserve(stage.make(8)) or "")
    small = stage.make(4)
    assert stage.scheduler.reserve(small) is None
    assert small.phase is Phase.RESERVED


def test_a_reservation_does_not_overtake_requests_that_wait_for_blocks() -> None:
    stage = Stage(blocks=4)
    stage.add(4)
    stage.step()
    stage.add(12)
    stage.step()
    assert "earlier" in (stage.scheduler.reserve(stage.make(1)) or "")


def test_reservations_count_as_places_so_that_a_commit_always_finds_one() -> None:
    stage = Stage(running=2, blocks=64)
    first, second = stage.make(4), stage.make(4)
    assert stage.scheduler.reserve(first) is None
    assert stage.scheduler.reserve(second) is None
    assert "places" in (stage.scheduler.reserve(stage.make(4)) or "")
    local = stage.add(4)
    assert not stage.step().chunks
    for sequence in (first, second):
        stage.scheduler.advance(sequence, 4)
        sequence.tokens.append(7)
        stage.scheduler.start(sequence)
    assert plan(stage.step()) == [("r0", 1), ("r1", 1)]
    assert local.phase is Phase.WAITING


def test_a_failed_pull_waits_again_and_finds_what_did_arrive() -> None:
    stage = Stage()
    sequence = stage.make(14)
    assert stage.scheduler.reserve(sequence) is None
    stage.scheduler.advance(sequence, 9)
    doubtful = sequence.blocks[2:]
    stage.scheduler.requeue(sequence, doubtful)
    stage.scheduler.check_integrity()
    assert stage.pool.quarantined == 2
    assert plan(stage.step()) == [("r0", 6)]
    assert not set(doubtful) & set(sequence.blocks)
    stage.pool.unquarantine(doubtful)


def test_pending_prefill_counts_what_is_neither_cached_nor_computed() -> None:
    stage = Stage(step=8)
    stage.add(12, first=100)
    assert stage.scheduler.pending_prefill_tokens() == 12
    stage.step()
    assert stage.scheduler.pending_prefill_tokens() == 4
    stage.add(12, first=100)
    assert stage.scheduler.pending_prefill_tokens() == 4 + 4


def test_a_turns_kv_outlives_others_if_it_asks_for_that_and_the_engine_allows_it() -> None:
    for retention_s, cached in ((60.0, 16), (0.0, 0)):
        stage = Stage(blocks=8, retention_s=retention_s)
        turn = stage.add(16, first=100, kv_ttl_s=30.0)
        stage.step()
        stage.scheduler.remove(turn)
        for _ in range(3):
            other = stage.add(15)
            stage.step()
            stage.scheduler.remove(other)
        again = stage.add(17, first=100)
        stage.step()
        assert again.cached_tokens == cached


def test_the_engines_bound_shortens_what_is_asked_for() -> None:
    stage = Stage(retention_s=5.0)
    turn = stage.add(16, kv_ttl_s=1000.0)
    stage.step()
    stage.scheduler.remove(turn)
    stage.pool.expire(4.9)
    assert stage.pool.retained == 4
    stage.pool.expire(5.0)
    assert stage.pool.retained == 0


def test_the_next_turn_of_a_conversation_ends_its_retention_and_may_begin_another() -> None:
    stage = Stage(retention_s=60.0)
    first = stage.add(16, first=100, kv_ttl_s=30.0, session="agent")
    stage.step()
    stage.scheduler.remove(first)
    assert stage.pool.retained == 4
    stage.add(8, session="somebody else")
    second = stage.add(24, first=100, kv_ttl_s=30.0, session="agent")
    assert stage.pool.retained == 4, "it still waits"
    stage.step()
    assert (second.cached_tokens, stage.pool.retained) == (16, 0)
    stage.scheduler.remove(second)
    assert stage.pool.retained == 6
    last = stage.add(25, first=100, session="agent")
    stage.step()
    stage.scheduler.remove(last)
    assert stage.pool.retained == 0, "the last turn wants nothing more"


def test_what_a_hand_off_has_computed_is_retained_when_it_is_released() -> None:
    stage = Stage(retention_s=60.0)
    source = stage.add(18, hand_off=True, kv_ttl_s=30.0)
    stage.step()
    stage.scheduler.hold(source)
    assert stage.pool.retained == 0
    stage.scheduler.remove(source)
    assert stage.pool.retained == 4


def test_whoever_is_preempted_is_not_retained() -> None:
    stage = Stage(blocks=4, retention_s=60.0)
    stage.add(8, kv_ttl_s=30.0)
    young = stage.add(4, kv_ttl_s=30.0)
    for _ in range(6):
        stage.step()
    assert (young.preemptions, stage.pool.retained) == (1, 0)
