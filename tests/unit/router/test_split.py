"""Local or apart, from two pictures of workers."""

from collections.abc import Callable

import pytest
from msgspec import structs

from tercet.ids import RequestId
from tercet.role import Role
from tercet.router.policy import Ask, WorkerView
from tercet.router.split import Split, SplitReason, predict_ttft_s
from tercet.wire import Endpoint, LoadReport

MakeEndpoint = Callable[..., Endpoint]
ASK = Ask(RequestId("r"), tokens=100)
SPLIT = Split(local_tokens_max=32)


@pytest.fixture
def view(endpoint: MakeEndpoint) -> WorkerView:
    """An idle worker that needs 1 ms a step and 0.1 ms a token."""
    report = LoadReport(
        role=Role.DECODE,
        waiting=0,
        running=0,
        holding=0,
        pulling=0,
        pending_prefill_tokens=0,
        context_tokens=0,
        blocks_total=0,
        blocks_used=0,
        prefill_coefficients=(1e-3, 1e-4, 0.0),
    )
    return WorkerView(
        endpoint=endpoint("decode-0"),
        report=report,
        report_age_s=0.0,
        suspect=False,
        pending_tokens=0,
        load_tokens=0,
        outstanding=0,
    )


def test_without_prefill_workers_everything_is_local(view: WorkerView) -> None:
    assert SPLIT.decide(ASK, view, None) is SplitReason.NO_PREFILL


def test_a_long_prompt_is_split(view: WorkerView) -> None:
    assert SPLIT.decide(ASK, view, view) is SplitReason.APART


def test_a_short_uncached_part_is_local(view: WorkerView) -> None:
    short, longer = structs.replace(view, hit_tokens=68), structs.replace(view, hit_tokens=67)
    assert SPLIT.decide(ASK, short, short) is SplitReason.SHORT
    assert SPLIT.decide(ASK, longer, longer) is SplitReason.APART


def test_a_prefill_queue_slower_than_computing_here_makes_it_local(view: WorkerView) -> None:
    busy, idle = structs.replace(view, pending_tokens=400), structs.replace(view, pending_tokens=30)
    assert SPLIT.decide(ASK, view, busy) is SplitReason.PREFILL_SLOWER
    assert SPLIT.decide(ASK, view, idle) is SplitReason.APART


def test_a_prefix_cached_only_at_the_decode_worker_is_used_there(view: WorkerView) -> None:
    here = structs.replace(view, hit_tokens=60)
    assert SPLIT.decide(ASK, here, view) is SplitReason.PREFILL_SLOWER


def test_workers_without_a_fitted_model_are_not_predicted(view: WorkerView) -> None:
    assert view.report is not None
    unfitted = structs.replace(view, report=None, pending_tokens=10_000)
    assert predict_ttft_s(ASK, unfitted) is None
    assert SPLIT.decide(ASK, view, unfitted) is SplitReason.APART


def test_the_prediction_counts_the_queue_and_the_missing_tokens(view: WorkerView) -> None:
    assert predict_ttft_s(ASK, view) == pytest.approx(1e-3 + 100 * 1e-4)
    later = structs.replace(view, hit_tokens=60, pending_tokens=200)
    assert predict_ttft_s(ASK, later) == pytest.approx(1e-3 + 240 * 1e-4)
