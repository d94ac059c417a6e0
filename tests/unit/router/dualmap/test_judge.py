"""Between two workers: affinity unless it costs too much, and the reason for it."""

from collections.abc import Callable

import pytest

from tercet.router.dualmap.judge import Affinity, PairReason, SloJudge
from tercet.router.forecast import Forecast
from tercet.router.policy import Ask, WorkerView

MakeView = Callable[..., WorkerView]
MakeAsk = Callable[..., Ask]
AFFINITY = Affinity(hit_tokens_min=512, hit_share_min=0.1)


def slo_judge(slo_s: float = 5.0, *, by_load: bool = False) -> SloJudge:
    return SloJudge(AFFINITY, Forecast(1000.0), slo_s, by_load)


@pytest.fixture
def long(ask: MakeAsk) -> Ask:
    """4,000 tokens: four seconds on an idle worker of this cluster."""
    return ask("r", "a/b/c/d/e/f/g", tokens=4000)


def decide(judge: SloJudge, ask: Ask, one: WorkerView, other: WorkerView) -> tuple[str, PairReason]:
    verdict = judge.decide(ask, judge.score(ask, one), judge.score(ask, other))
    mirrored = judge.decide(ask, judge.score(ask, other), judge.score(ask, one))
    if judge.score(ask, one).cost_tokens != judge.score(ask, other).cost_tokens:
        assert mirrored == verdict, "the order of the two does not matter"
    return verdict.best.view.worker, verdict.reason


def test_a_useful_hit_attracts_although_the_other_one_is_earlier(view: MakeView, long: Ask) -> None:
    near, idle = view("a", hit=2000, pending=2500), view("b")
    assert decide(slo_judge(), long, near, idle) == ("a", PairReason.AFFINITY)


def test_affinity_is_left_exactly_where_the_promise_breaks(view: MakeView, long: Ask) -> None:
    idle = view("b")
    last, over = view("a", hit=2000, pending=3000), view("a", hit=2000, pending=3001)
    assert decide(slo_judge(), long, last, idle) == ("a", PairReason.AFFINITY)
    assert decide(slo_judge(), long, over, idle) == ("b", PairReason.SWITCH)


def test_neither_keeps_the_promise(view: MakeView, long: Ask) -> None:
    one, other = view("a", hit=2000, pending=4000), view("b", pending=2500)
    assert decide(slo_judge(), long, one, other) == ("a", PairReason.ESCAPE)


def test_who_is_late_anyway_goes_where_it_costs_little(view: MakeView, long: Ask) -> None:
    """Elsewhere 2,000 tokens more are computed: worth it if that is more than 6 s earlier, or in time."""
    other, judge = view("b", pending=1500), slo_judge()
    assert decide(judge, long, view("a", hit=2000, pending=9000), other) == ("a", PairReason.ESCAPE)
    assert decide(judge, long, view("a", hit=2000, pending=10_000), other)[0] == "b"
    assert decide(judge, long, view("a", hit=2000, pending=3100), view("b"))[0] == "b"


def test_without_a_useful_hit_the_earlier_one_is_chosen(view: MakeView, long: Ask) -> None:
    assert decide(slo_judge(), long, view("a", pending=7), view("b")) == ("b", PairReason.BALANCE)
    small = view("a", hit=400, pending=300)
    assert decide(slo_judge(), long, small, view("b", pending=10)) == ("a", PairReason.BALANCE)


@pytest.mark.parametrize(
    ("tokens", "more", "useful"),
    [
        (4000, 400, False),
        (4000, 401, True),
        (100_000, 512, False),
        (100_000, 513, True),
        (100, 11, True),
    ],
)
def test_a_hit_is_useful_if_it_is_long_or_most_of_a_short_prompt(
    tokens: int, more: int, useful: bool, view: MakeView, ask: MakeAsk
) -> None:
    """Both have the system prompt; only what one of them has more can count."""
    request = ask("r", "a", tokens=tokens)
    judge = slo_judge(slo_s=1000.0)
    one, other = view("a", hit=50 + more, pending=5), view("b", hit=50)
    _, reason = decide(judge, request, one, other)
    assert reason is (PairReason.AFFINITY if useful else PairReason.BALANCE)


def test_the_papers_switch_takes_fewer_pending_tokens_and_throws_the_cache_away(
    view: MakeView, long: Ask
) -> None:
    near, other = view("a", hit=3900, pending=5000), view("b", pending=4950)
    assert decide(slo_judge(), long, near, other) == ("a", PairReason.ESCAPE)
    assert decide(slo_judge(slo_s=9.0), long, near, other)[0] == "a"
    assert decide(slo_judge(by_load=True), long, near, other) == ("b", PairReason.ESCAPE)


def test_before_anything_is_measured_tokens_decide(view: MakeView, long: Ask) -> None:
    """4,000 tokens at the assumed 1,000 a second take four seconds."""
    near, idle = view("a", hit=2000, pending=3000, fitted=False), view("b", fitted=False)
    assert decide(slo_judge(), long, near, idle) == ("a", PairReason.AFFINITY)
    late = view("a", hit=2000, pending=3001, fitted=False)
    assert decide(slo_judge(), long, late, idle) == ("b", PairReason.SWITCH)


def test_an_unmeasured_worker_borrows_its_equals_fit(view: MakeView, long: Ask) -> None:
    judge = SloJudge(AFFINITY, Forecast(1e6), 5.0)
    assert judge.score(long, view("a")).predicted_ttft_s == pytest.approx(4.0)
    assert judge.score(long, view("b", fitted=False)).predicted_ttft_s == pytest.approx(4.0)
