"""The last finished requests, kept for whoever asks."""

from collections import OrderedDict

from tercet.ids import RequestId
from tercet.router.accuracy import LATELY, accuracy_of
from tercet.router.record import RequestRecord
from tercet.wire import Accuracy

RECORDS_MAX = 1000
"""Finished requests remembered by one front door."""


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
