"""How far predictions of the first token were off, for Prometheus and for a glance."""

import pytest

from tercet.ids import FrontDoorId, RequestId, WorkerId
from tercet.router.history import accuracy_of
from tercet.router.metrics import Metrics
from tercet.router.record import RequestRecord
from tercet.router.status import FrontDoorStatus
from tercet.wire import Accuracy


def record(
    real_ms: float | None,
    predicted_ms: float | None,
    queue_ms: float = 0.0,
    prefill: str | None = None,
) -> RequestRecord:
    return RequestRecord(
        request=RequestId("r"),
        prefill_worker=WorkerId(prefill) if prefill else None,
        decode_worker=WorkerId("decode-0"),
        queue_ms=queue_ms,
        ttft_ms=None if real_ms is None else real_ms + queue_ms,
        dispatch_ttft_ms=real_ms,
        predicted_ttft_ms=predicted_ms,
    )


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(
        lambda: FrontDoorStatus(
            front_door=FrontDoorId("door"),
            membership_version=1,
            policy="script",
            in_flight=0,
            queued=0,
            turned_away=0,
            known_blocks=0,
            workers=(),
        )
    )


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"tercet_{name}", labels)


def test_errors_are_counted_by_pool_and_the_wait_before_the_dispatch_is_none(
    metrics: Metrics,
) -> None:
    metrics.ended(record(120.0, 100.0, queue_ms=5000.0, prefill="prefill-0"))
    metrics.ended(record(50.0, 100.0))
    assert sample(metrics, "ttft_error_seconds_sum", pool="prefill") == pytest.approx(0.02)
    assert sample(metrics, "ttft_error_seconds_sum", pool="decode") == pytest.approx(0.05)


def test_the_error_ratio_keeps_its_sign(metrics: Metrics) -> None:
    metrics.ended(record(120.0, 100.0))  # a fifth later
    metrics.ended(record(60.0, 100.0))  # two fifths earlier
    below = {
        bound: sample(metrics, "ttft_error_ratio_bucket", pool="decode", le=bound)
        for bound in ("-0.5", "-0.25", "0.1", "0.25")
    }
    assert below == {"-0.5": 0.0, "-0.25": 1.0, "0.1": 1.0, "0.25": 2.0}


@pytest.mark.parametrize(("real_ms", "predicted_ms"), [(None, 100.0), (100.0, None), (5.0, 0.0)])
def test_without_a_token_or_a_prediction_there_is_no_error(
    metrics: Metrics, real_ms: float | None, predicted_ms: float | None
) -> None:
    metrics.ended(record(real_ms, predicted_ms))
    assert sample(metrics, "ttft_error_seconds_count", pool="decode") is None


def test_accuracy_is_a_median_and_a_ninth_decile_of_absolute_errors() -> None:
    records = [record(100.0 + error * (-1) ** error, 100.0) for error in range(1, 11)]
    seen = accuracy_of([*records, record(None, 100.0), record(100.0, None)])
    assert seen == Accuracy(predictions=10, error_ms_p50=5.0, error_ms_p90=9.0)
    assert accuracy_of([]) == Accuracy()
    assert accuracy_of([record(7.0, 10.0)]) == Accuracy(
        predictions=1, error_ms_p50=3.0, error_ms_p90=3.0
    )
