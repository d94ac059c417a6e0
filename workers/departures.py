"""All moves from this worker: brings events to their state machines, and remembers what has ended for those who ask late. Pure.

A hand-off is opened with its order; a live move by the first destination that pulls. Leases are durations on our own clock:
`now_s` is given with every call that needs it.
"""

from collections import OrderedDict
from collections.abc import Callable

from tercet import wire
from tercet.ids import Epoch, RequestId
from tercet.workers import events
from tercet.workers.move import (
    Departure,
    DepartureCommand,
    DepartureEvent,
    DeparturePhase,
    OwnerLost,
    ReaderLost,
    Recalled,
    Spoken,
    Tick,
    ToReader,
    Vanished,
)

FINISHED_MAX = 4096
"""How many requests that ended while they were on their way are remembered, for destinations that ask late."""

Key = tuple[RequestId, Epoch]


class Departures:
    """`now_s` tells the time of events that bring none."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._departures: dict[Key, Departure] = {}
        self._finished: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._departures)

    @property
    def leases(self) -> int:
        """Requests a destination is reading or may read at once."""
        return sum(departure.leased for departure in self._departures.values())

    # ---- from the front door -----------------------------------------------------------------------------------------

    def open(self, request: RequestId, epoch: Epoch, owner: str) -> None:
        """A request is given to the engine, to be handed off after its first token. Idempotent, as the engine is."""
        key = (request, epoch)
        self._departures.setdefault(key, Departure(request, epoch, owner, self._lease_s))

    def resume(self, owner: str, order: wire.Resume, now_s: float) -> list[DepartureCommand]:
        """Nobody takes the request over: whoever pulls is told so, and it runs on."""
        recalled = self._handle((order.request, order.epoch), Recalled(), now_s)
        return [*recalled, events.Thaw(order.request, order.epoch, owner)]

    def owner_lost(self, owner: str, now_s: float) -> list[DepartureCommand]:
        """A front door is gone: nobody will bind a destination to what is held for it."""
        return self._handle_all(lambda one: one.owner == owner, OwnerLost(), now_s)

    # ---- from the engine ---------------------------------------------------------------------------------------------

    def on_engine(
        self, event: events.Published | events.Held | events.Ended | events.Said, now_s: float
    ) -> list[DepartureCommand]:
        """Events of other requests are ignored."""
        match event:
            case events.Said(message=wire.Tokens(request=request, epoch=epoch, finish=finish)):
                if finish is not None and (request, epoch) in self._departures:
                    self._remember((request, epoch))
                return []
            case events.Said():
                return []
            case events.Ended():
                key = (event.request, event.epoch)
                return self._handle(key, Vanished(key in self._finished), now_s)
            case events.Published() | events.Held():
                return self._handle((event.request, event.epoch), event, now_s)

    # ---- from destinations -------------------------------------------------------------------------------------------

    def on_reader(
        self,
        reader: str,
        message: wire.Pull | wire.Freeze | wire.Renew | wire.Release,
        now_s: float,
    ) -> list[DepartureCommand]:
        """A message that came over the peer link named `reader`."""
        if isinstance(message, wire.Renew):
            for key in message.requests:
                self._handle(key, Spoken(reader, message), now_s)
            return []
        key = (message.request, message.epoch)
        if isinstance(message, wire.Pull) and key not in self._departures:
            if key in self._finished or not message.live:
                reason = wire.GoneReason.UNKNOWN
                if key in self._finished:
                    reason = wire.GoneReason.FINISHED
                return [ToReader(reader, wire.Gone(*key, reason))]
            self._departures[key] = Departure(*key, "", self._lease_s, live=True)
        return self._handle(key, Spoken(reader, message), now_s)

    def reader_lost(self, reader: str, now_s: float) -> list[DepartureCommand]:
        """A peer link is gone."""
        return self._handle_all(lambda one: one.reader == reader, ReaderLost(reader), now_s)

    def tick(self, now_s: float) -> list[DepartureCommand]:
        """End the leases that nobody has renewed."""
        return self._handle_all(lambda one: True, Tick(), now_s)

    def validate(self) -> None:
        """Raises AssertionError when a state machine contradicts itself."""
        for departure in self._departures.values():
            departure.validate()
            assert departure.phase is not DeparturePhase.OVER, departure

    def _handle_all(
        self, which: Callable[[Departure], bool], event: DepartureEvent, now_s: float
    ) -> list[DepartureCommand]:
        keys = [key for key, departure in self._departures.items() if which(departure)]
        return [command for key in keys for command in self._handle(key, event, now_s)]

    def _handle(self, key: Key, event: DepartureEvent, now_s: float) -> list[DepartureCommand]:
        departure = self._departures.get(key)
        if departure is None:
            return []
        commands = departure.handle(event, now_s)
        if departure.phase is DeparturePhase.OVER:
            del self._departures[key]
        return commands

    def _remember(self, key: Key) -> None:
        self._finished[key] = None
        while len(self._finished) > FINISHED_MAX:
            self._finished.popitem(last=False)
