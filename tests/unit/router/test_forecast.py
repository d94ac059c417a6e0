"""When a first token is predicted, whatever a worker says about its speed."""

from collections.abc import Callable

import msgspec
import pytest

from tercet.ids import RequestId
from tercet.role import Role
from tercet.router.forecast import Forecast
from tercet.router.policy import Ask, WorkerView
from tercet.wire import Endpoint, LoadReport

ASK = Ask(RequestId("r"), 1000)
REPORT = LoadReport(Role.DECODE, 1, 1, 0, 0, 5000, 0, 100, 0)


@pytest.fixture
def view(endpoint: Callable[..., Endpoint]) -> WorkerView:
    return WorkerView(endpoint("decode-0"), REPORT, 0.0, False, 5000, 5000, 1)


def fitted(view: WorkerView, *coefficients: float) -> WorkerView:
    report = msgspec.structs.replace(REPORT, prefill_coefficients=coefficients)
    return msgspec.structs.replace(view, report=report)


def test_before_anybody_has_measured_the_assumption_counts(view: WorkerView) -> None:
    assert Forecast(10_000).ttft_s(ASK, view) == pytest.approx(0.6)


def test_who_has_not_measured_borrows_the_last_fit_seen(view: WorkerView) -> None:
    forecast = Forecast(10_000)
    assert forecast.ttft_s(ASK, fitted(view, 0.01, 1e-3, 0.0)) == pytest.approx(6.01)
    assert forecast.ttft_s(ASK, view) == pytest.approx(6.01)


def test_a_fit_that_finds_tokens_free_of_cost_makes_nobody_look_idle(view: WorkerView) -> None:
    assert Forecast(10_000).ttft_s(ASK, fitted(view, 0.002, 0.0, 0.0)) == pytest.approx(0.6)
