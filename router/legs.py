"""The workers that may still hold something of one request: under which epoch each owns it, and how it is told to forget."""

from dataclasses import dataclass

from tercet.ids import FIRST_EPOCH, Epoch, RequestId
from tercet.router.events import Closed, Command, Send
from tercet.wire import Cancel, Endpoint


@dataclass(slots=True)
class Leg:
    """One worker's part in a request."""

    worker: Endpoint
    epoch: Epoch
    spoke: bool = False
    """It has sent tokens: its prompt KV is complete."""

    @property
    def name(self) -> str:
        return self.worker.worker

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether this leg runs in that life of that worker."""
        mine = self.worker
        return (mine.worker, mine.incarnation) == (endpoint.worker, endpoint.incarnation)


class Legs:
    """At most two: the source, or a worker that is alone, and the destination, under a later epoch."""

    def __init__(self, request: RequestId) -> None:
        self.source: Leg | None = None
        self.destination: Leg | None = None
        self.last_epoch = FIRST_EPOCH
        """No leg has had a later one."""
        self._request = request

    def next_epoch(self) -> Epoch:
        """One that no leg has had."""
        self.last_epoch = Epoch(self.last_epoch + 1)
        return self.last_epoch

    def turn(self) -> list[Command]:
        """A destination becomes the source of the next move; what the source before it still has is not wanted."""
        if self.destination is None:
            return []
        forgotten = self.forget(self.source)
        self.source, self.destination = self.destination, None
        return forgotten

    def __repr__(self) -> str:
        return f"Legs({self.source}, {self.destination})"

    def of(self, epoch: Epoch) -> Leg | None:
        """Who owns, or owned, the request under this epoch and is not closed."""
        for leg in (self.source, self.destination):
            if leg is not None and leg.epoch == epoch:
                return leg
        return None

    def at(self, endpoint: Endpoint) -> Leg | None:
        """The leg in that life of that worker."""
        for leg in (self.source, self.destination):
            if leg is not None and leg.is_at(endpoint):
                return leg
        return None

    def close(self, leg: Leg) -> list[Command]:
        """The worker has nothing any more, so there is nothing to cancel."""
        if leg is self.source:
            self.source = None
        else:
            assert leg is self.destination, f"not a leg of this request: {leg}"
            self.destination = None
        return [Closed(leg.worker)]

    def forget(self, leg: Leg | None) -> list[Command]:
        """Whatever the worker has, it is not wanted any more."""
        if leg is None:
            return []
        return [Send(leg.worker, Cancel(self._request, leg.epoch)), *self.close(leg)]

    def forget_all(self) -> list[Command]:
        return [*self.forget(self.source), *self.forget(self.destination)]
