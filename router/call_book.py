"""Which requests a call became: people hold the ids of calls, or names they gave them; records have those of requests."""

from collections import OrderedDict

from tercet.ids import RequestId
from tercet.router.call import Call
from tercet.router.history import RECORDS_MAX


class CallBook:
    """The last calls, by id and by their clients' names; of calls with the same name the last one counts."""

    def __init__(self, names_max: int = 2 * RECORDS_MAX) -> None:
        self._names_max = names_max
        self._requests: OrderedDict[str, tuple[RequestId, ...]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, call: Call) -> None:
        """The oldest names are forgotten where there are too many."""
        for name in filter(None, (call.id, call.name)):
            self._requests[name] = call.requests
            self._requests.move_to_end(name)
        while len(self._requests) > self._names_max:
            self._requests.popitem(last=False)

    def find(self, name: str) -> tuple[RequestId, ...]:
        """The requests of that call, by choice. A name that is not known may still be a request's own."""
        return self._requests.get(name, (RequestId(name),))
