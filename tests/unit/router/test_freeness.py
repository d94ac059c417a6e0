"""Decode workers: the freer of two, the holder where that saves more, and nobody without room."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.freeness import DRAWS_MAX, Freeness, FreenessReason
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, Choice, WorkerView
from tercet.router.pool import ListedPool
from tercet.wire import Endpoint, LoadReport

MakeEndpoint = Callable[..., Endpoint]
MakeView = Callable[..., WorkerView]
ASK = Ask(RequestId("r"), tokens=1000)


@pytest.fixture
def view(endpoint: MakeEndpoint) -> MakeView:
    """A worker with 1,000 blocks of 16 tokens. A step takes 10 ms and pulls 1,000 tokens, where that is measured."""

    def make(
        name: str,
        *,
        used: int = 0,
        running: int = 0,
        hit: int = 0,
        step_s: float = 0.0,
        pull_token_s: float = 0.0,
        **report: int,
    ) -> WorkerView:
        told = {"waiting": 0, "holding": 0, "pulling": 0, "pending_prefill_tokens": 0, **report}
        load = LoadReport(
            role=Role.DECODE,
            running=running,
            context_tokens=16 * used,
            blocks_total=1000,
            blocks_used=used,
            decode_coefficients=(step_s, 0.0, 0.0),
            pull_bytes=16_000 if pull_token_s else 0,
            pull_s=1000 * pull_token_s,
            block_bytes=256,
            **told,
        )
        return WorkerView(endpoint(name), load, 0.0, False, 0, 0, 0, hit)

    return make


def freeness(seed: int = 1) -> Freeness:
    return Freeness(random.Random(seed), output_tokens=100)


def choose(chooser: Freeness, *views: WorkerView, ask: Ask = ASK) -> Choice:
    choice = chooser.choose(ask, ListedPool(views))
    assert choice is not None
    return choice


def verdict(*views: WorkerView, ask: Ask = ASK) -> tuple[str, str]:
    choice = choose(freeness(), *views, ask=ask)
    return choice.view.worker, choice.reason


# ---- freeness --------------------------------------------------------------------------------------------------------


def test_the_one_with_more_steps_until_it_is_full_is_chosen(view: MakeView) -> None:
    """16,000 tokens less 1,000 of the request: 7,000 / 2 steps against 11,800 / 4."""
    few_long, many_short = view("a", used=500, running=1), view("b", used=200, running=3)
    assert verdict(few_long, many_short) == ("a", FreenessReason.FREER)
    assert verdict(view("a", used=621, running=1), many_short) == ("b", FreenessReason.FREER)


@pytest.mark.parametrize(
    "busy",
    [
        {"used": 10},
        {"running": 1},
        {"pulling": 1},
        {"waiting": 1},
        {"waiting": 1, "pending_prefill_tokens": 500},
        {"quarantined_blocks": 10},
    ],
)
def test_whatever_takes_room_or_a_place_counts(busy: dict[str, int], view: MakeView) -> None:
    assert verdict(view("busy", **busy), view("idle")) == ("idle", FreenessReason.FREER)


def test_a_prompt_that_is_being_computed_has_its_blocks_and_counts_once(view: MakeView) -> None:
    computing = view("a", used=100, running=1, pending_prefill_tokens=1500)
    other = view("b", used=101, running=1)
    assert verdict(computing, other)[0] == "a"


def test_our_own_dispatches_count_before_a_report_shows_them(view: MakeView) -> None:
    sent = structs.replace(view("a"), unreported_requests=1, unreported_context_tokens=1000)
    assert verdict(sent, view("b", used=10))[0] == "b"
    over = structs.replace(view("a", used=100, running=2), unreported_requests=-1)
    assert verdict(over, view("b", used=100, running=2))[0] == "a"


def test_a_worker_without_a_report_is_thought_to_be_like_the_others(view: MakeView) -> None:
    new = structs.replace(view("new"), report=None)
    chooser = freeness()
    assert choose(chooser, new, view("b", used=10)).view.worker == "new"
    busy = structs.replace(new, unreported_requests=5, unreported_context_tokens=5000)
    assert choose(chooser, busy, view("b", used=10)).view.worker == "b"
    news = [structs.replace(busy, endpoint=view("c").endpoint), new]
    assert verdict(*news)[0] == "new", "nobody has ever reported: the lesser load"


# ---- room ------------------------------------------------------------------------------------------------------------


def test_a_worker_without_room_is_not_chosen_while_another_has_room(view: MakeView) -> None:
    """1,000 tokens are 62.5 blocks; with the block into which each request may grow 64 must be free."""
    last, full = view("a", used=936, running=0), view("a", used=937, running=0, hit=1000)
    busy = view("b", used=800, running=99)
    assert verdict(last, busy)[0] == "a"
    assert {verdict(full, busy), verdict(busy, full)} == {("b", FreenessReason.FREER)}


def test_room_is_found_wherever_it_is(view: MakeView) -> None:
    """More full ones than are drawn."""
    full = [view(f"decode-{number:03}", used=990) for number in range(10 * DRAWS_MAX)]
    chooser = freeness()
    for _ in range(20):
        assert choose(chooser, *full, view("roomy", used=500)).view.worker == "roomy"


def test_when_nobody_has_room_the_least_full_is_chosen(view: MakeView) -> None:
    views = [view(f"w{used}", used=used, running=10) for used in (999, 980, 990)]
    assert verdict(*views) == ("w980", FreenessReason.FULL)


def test_suspects_get_nothing(view: MakeView) -> None:
    late = structs.replace(view("a", hit=1000), suspect=True)
    assert {verdict(late, view("b", used=930, running=5))} == {("b", FreenessReason.FREER)}
    assert freeness().choose(ASK, ListedPool([late])) is None
    assert freeness().choose(ASK, ListedPool([])) is None


# ---- affinity --------------------------------------------------------------------------------------------------------


def test_who_holds_the_conversation_is_asked_although_it_was_not_drawn(view: MakeView) -> None:
    holder, chooser = view("holder", hit=900), freeness()
    others = [view(f"w{number:03}") for number in range(200)]
    choices = [choose(chooser, holder, *others) for _ in range(50)]
    assert {choice.view.worker for choice in choices} == {"holder"}
    assert {choice.reason for choice in choices} == {FreenessReason.AFFINITY}
    assert {len(choice.candidates) for choice in choices} <= {2, 3}


def test_affinity_wins_exactly_as_far_as_it_saves_more_than_fullness_costs(view: MakeView) -> None:
    """N = 100 and 1,000 tokens a step: 100,000 · 100 / (100 + freeness). Idle, with a freeness of 15,000, that is 662.3;
    with 14,520 it is 684.0, with 14,504 684.7. Hits are whole tokens: 22 and 23 make up for it."""
    measured = {"step_s": 0.01, "pull_token_s": 1e-5}
    idle = view("idle", **measured)
    for used, worth in ((30, 22), (31, 23)):
        near, far = (view("near", used=used, hit=hit, **measured) for hit in (worth, worth - 1))
        assert verdict(near, idle) == ("near", FreenessReason.AFFINITY)
        assert verdict(far, idle) == ("idle", FreenessReason.CROWDED)


def test_affinity_loses_when_the_worker_is_nearly_full(view: MakeView) -> None:
    near, idle = view("near", used=900, running=10, hit=999), view("idle")
    assert verdict(near, idle) == ("idle", FreenessReason.CROWDED)
    assert verdict(view("near", used=5, hit=999), idle) == ("near", FreenessReason.AFFINITY)


def test_slow_pulls_and_fast_steps_make_a_hit_worth_more(view: MakeView) -> None:
    def near(step_s: float, pull_token_s: float) -> str:
        measured = {"step_s": step_s, "pull_token_s": pull_token_s}
        holder = view("near", used=300, running=3, hit=900, **measured)
        return verdict(holder, view("idle", **measured))[0]

    assert near(step_s=0.01, pull_token_s=1e-5) == "idle"
    assert near(step_s=0.001, pull_token_s=1e-5) == "near"
    assert near(step_s=0.01, pull_token_s=1e-4) == "near"


def test_a_prefix_that_everybody_holds_attracts_nobody(view: MakeView) -> None:
    views = [view(f"w{number}", hit=512) for number in range(8)]
    chooser = freeness()
    choices = [choose(chooser, *views) for _ in range(800)]
    counts = Counter(choice.view.worker for choice in choices)
    assert {choice.reason for choice in choices} == {FreenessReason.FREER}
    assert min(counts.values()) > 60, counts


# ---- many ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_with_equal_reports_many_choices_spread_evenly(workers: int, seed: int) -> None:
    """The report stays as it was, and our own dispatches even it out: two choices leave next to nothing. By lot alone the
    fullest of 40 would have about twice the mean of 8."""
    report = LoadReport(Role.DECODE, 0, 0, 0, 0, 0, 0, blocks_total=10_000, blocks_used=0)
    life, names = Incarnation("1"), [f"w{number:02}" for number in range(workers)]
    ends = [Endpoint(WorkerId(name), life, Role.DECODE, "h", 1, "here") for name in names]
    views = {end.worker: WorkerView(end, report, 0.0, False, 0, 0, 0) for end in ends}
    chooser = freeness(seed)
    for _ in range(8 * workers):
        view = choose(chooser, *views.values()).view
        sent = view.unreported_requests + 1
        views[view.worker] = structs.replace(
            view, unreported_requests=sent, unreported_context_tokens=1000 * sent
        )
    assert max(view.unreported_requests for view in views.values()) <= 8 + 4


@dataclass
class Glass:
    """A pool that counts the looks."""

    pool: ListedPool
    looks: int = 0

    @property
    def members(self) -> frozenset[WorkerId]:
        return self.pool.members

    def find(self, worker: WorkerId) -> WorkerView | None:
        self.looks += 1
        return self.pool.find(worker)

    def nearest(self) -> Iterator[WorkerView]:
        for view in self.pool.nearest():
            self.looks += 1
            yield view

    def __iter__(self) -> Iterator[WorkerView]:
        for view in self.pool:
            self.looks += 1
            yield view


def test_four_workers_are_looked_at_however_many_there_are(view: MakeView) -> None:
    glass = Glass(ListedPool([view(f"w{number}", hit=number) for number in range(1000)]))
    freeness().choose(ASK, glass)
    assert glass.looks == 4


@pytest.mark.parametrize("name", POLICIES.names)
def test_every_policy_chooses_decode_workers_so(name: str, view: MakeView) -> None:
    decode = POLICIES.options(name, {"output_tokens": 100}).build_decode(random.Random(1))
    choice = decode.choose(ASK, ListedPool([view("busy", used=300, running=9), view("idle")]))
    assert choice is not None
    assert (choice.view.worker, choice.reason) == ("idle", FreenessReason.FREER)
