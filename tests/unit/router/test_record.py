"""Records say what happened, in milliseconds, and only the last ones are kept."""

from collections.abc import Callable

import pytest

from tercet.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RequestFailed,
    TercetError,
)
from tercet.ids import RequestId
from tercet.request import FinishReason
from tercet.role import Role
from tercet.router.history import History
from tercet.router.policy import Choice, Scored, WorkerView
from tercet.router.record import Outcome, RequestRecord, Tally, outcome_of
from tercet.router.routes import Route
from tercet.router.split import SplitReason
from tercet.wire import Endpoint, Usage


def test_times_are_measured_from_the_call() -> None:
    tally = Tally(RequestId("r"), prompt_tokens=3, started_s=10.0, dispatched_s=10.5)
    tally.arrived(1, 11.0)
    tally.arrived(2, 11.1)
    tally.arrived(1, 11.4)
    tally.finished(FinishReason.STOP, 11.5)
    record = tally.record(99.0, replays=1, refusals=2)
    assert record.queue_ms == pytest.approx(500)
    assert record.ttft_ms == pytest.approx(1000)
    assert record.itl_ms == pytest.approx(400 / 3)
    assert record.itl_ms_max == pytest.approx(300)
    assert record.total_ms == pytest.approx(1500)
    assert (record.output_tokens, record.replays, record.refusals) == (4, 1, 2)
    assert record.outcome is Outcome.STOP


def test_one_token_has_no_time_between_tokens() -> None:
    tally = Tally(RequestId("r"), prompt_tokens=3, started_s=0.0)
    tally.arrived(1, 0.5)
    record = tally.record(1.0, replays=0, refusals=0)
    assert (record.itl_ms, record.itl_ms_max) == (None, None)
    assert record.outcome is Outcome.RUNNING


def test_cached_tokens_are_those_of_the_worker_that_prefilled() -> None:
    tally = Tally(RequestId("r"), prompt_tokens=30, started_s=0.0)
    tally.billed(Usage(cached_tokens=16, computed_tokens=14, preemptions=1), of_source=True)
    pulled = Usage(pulled_tokens=30, pulled_bytes=300, preemptions=2, pulled_codec="int8")
    tally.billed(pulled, of_source=False)
    record = tally.record(1.0, replays=0, refusals=0)
    assert (record.cached_tokens, record.pulled_bytes, record.preemptions) == (16, 300, 3)
    assert record.pulled_codec == "int8"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Overloaded("full", 1.0), Outcome.OVERLOADED),
        (NoWorkers("none", 1.0), Outcome.NO_WORKERS),
        (InvalidRequest("prompt", "too long"), Outcome.INVALID),
        (DeadlineExceeded("late"), Outcome.DEADLINE),
        (RequestFailed("lost"), Outcome.FAILED),
    ],
)
def test_every_error_has_its_outcome(error: TercetError, outcome: Outcome) -> None:
    assert outcome_of(error) is outcome


def test_history_is_bounded_and_newest_first() -> None:
    history = History(records_max=3)
    for number in range(5):
        history.add(RequestRecord(request=RequestId(f"r{number}")))
    assert [record.request for record in history.recent(2)] == ["r4", "r3"]
    assert len(history) == 3
    assert history.find(RequestId("r1")) is None
    assert history.find(RequestId("r2")) is not None


def test_a_prediction_is_compared_with_the_dispatch_it_was_made_for(
    endpoint: Callable[..., Endpoint],
) -> None:
    def route(name: str, predicted_ttft_s: float) -> Route:
        view = WorkerView(endpoint(name), None, 0.0, False, 0, 0, 0, hit_tokens=16)
        choice = Choice(view, (Scored(view, 1.0),))
        return Route(choice, SplitReason.APART, 24, predicted_ttft_s)

    tally = Tally(RequestId("r"), prompt_tokens=40, started_s=0.0)
    tally.begun(route("prefill-0", 1.0), now_s=5.0)
    tally.begun(route("prefill-1", 2.0), now_s=7.0)  # the first one refused
    tally.arrived(1, 9.5)
    tally.begun(route("prefill-0", 3.0), now_s=10.0)  # a replay
    record = tally.record(11.0, replays=1, refusals=1)
    assert (record.queue_ms, record.ttft_ms) == (5000, 9500)
    assert (record.dispatch_ttft_ms, record.predicted_ttft_ms) == (2500, 2000)
    assert record.ttft_error_ms == 500
    assert record.began_in is Role.PREFILL
