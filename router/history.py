"""The last finished requests, kept for whoever asks, and how well their first tokens were predicted."""

from collections import OrderedDict
from collections.abc import Iterable

from tercet.ids import RequestId
from tercet.router.record import RequestRecord
from tercet.wire import Accuracy

RECORDS_MAX = 1000
"""Finished requests remembered by one front door."""
LATELY = 256
"""Requests that count for its accuracy."""


class History:
    """The last finished requests, newest first; the oldest are forgotten."""

    def __init__(self, records_max: int = RECORDS_MAX) -> None:
        self._records_max = records_max
        self._records: OrderedDict[RequestId, RequestRecord] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: RequestRecord) -> None:
        self._records[record.request] = record
        self._records.move_to_end(record.request)
        while len(self._records) > self._records_max:
            self._records.popitem(last=False)

    def find(self, request: RequestId) -> RequestRecord | None:
        return self._records.get(request)

    def recent(self, limit: int) -> list[RequestRecord]:
        """At most `limit` records, newest first."""
        newest = reversed(self._records.values())
        return [record for record, _ in zip(newest, range(limit), strict=False)]

    def accuracy(self) -> Accuracy:
        """How well first tokens were predicted lately."""
        return accuracy_of(self.recent(LATELY))


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
