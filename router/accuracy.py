"""How well first tokens were predicted lately."""

from collections.abc import Iterable

from tercet.router.record import RequestRecord
from tercet.wire import Accuracy

LATELY = 256
"""Requests that count."""


def accuracy_of(records: Iterable[RequestRecord]) -> Accuracy:
    """Of those records whose first token was predicted and came."""
    errors_ms = sorted(abs(e) for record in records if (e := record.ttft_error_ms) is not None)
    count = len(errors_ms)
    if not count:
        return Accuracy()
    return Accuracy(
        predictions=count,
        error_ms_p50=errors_ms[(count - 1) // 2],
        error_ms_p90=errors_ms[(count - 1) * 9 // 10],
    )
