"""All moves from this worker: brings events to their state machines, and remembers what has ended for those who ask late. Pure.

A hand-off is opened with its order; a live move by the first destination that pulls. Leases are durations on our own clock:
`now_s` is given with every call that needs it.
"""

import itertools
from collections import OrderedDict
from collections.abc import Callable

from tercet import wire
from tercet.ids import Epoch, RequestId
from tercet.workers import events
from tercet.workers.move import (
    Departure,
    DepartureEvent,
    DeparturePhase,
    OwnerLost,
    Packed,
    PackedOffers,
    PackingTerms,
    ReaderLost,
    Recalled,
    SourceCommand,
    Spoken,
    Tick,
    ToReader,
    Vanished,
)

FINISHED_MAX = 4096
"""How many requests that ended while they were on their way are remembered, for destinations that ask late."""

PLAIN_ONLY = PackingTerms()

Key = tuple[RequestId, Epoch]


class Departures:
    """`now_s` tells the time of events that bring none."""

    def __init__(self, lease_s: float, packing: PackingTerms = PLAIN_ONLY) -> None:
        self._lease_s = lease_s
        self._packing = packing
        self._departures: dict[Key, Departure] = {}
        self._packed: dict[Key, PackedOffers] = {}
        """For those readers only that asked for a codec."""
        self._orders = itertools.count(1)
        self._finished: OrderedDict[Key, None] = OrderedDict()
        self._exposures = 0

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

    def resume(self, owner: str, order: wire.Resume, now_s: float) -> list[SourceCommand]:
        """Nobody takes the request over: whoever pulls is told so, and it runs on.

        Unless the order is late, and somebody else pulls by now, who may have committed.
        """
        key = (order.request, order.epoch)
        departure = self._departures.get(key)
        if departure is not None and departure.reader_epoch > order.upto:
            return []
        recalled = self._handle(key, Recalled(), now_s)
        return [*recalled, events.Thaw(order.request, order.epoch, owner)]

    def owner_lost(self, owner: str, now_s: float) -> list[SourceCommand]:
        """A front door is gone: nobody will bind a destination to what is held for it."""
        return self._handle_all(lambda one: one.owner == owner, OwnerLost(), now_s)

    # ---- from the engine ---------------------------------------------------------------------------------------------

    def on_engine(
        self,
        event: events.Published | events.Held | events.Ended | events.Absent | events.Said,
        now_s: float,
    ) -> list[SourceCommand]:
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
            case events.Absent():
                return self._absent(event, now_s)
            case events.Published() | events.Held():
                return self._handle((event.request, event.epoch), event, now_s)

    def _absent(self, event: events.Absent, now_s: float) -> list[SourceCommand]:
        """Of the move that asked, and not of one that came after it and may have found the request."""
        key = (event.request, event.epoch)
        departure = self._departures.get(key)
        if departure is None or departure.exposure != event.exposure:
            return []
        return self._handle(key, Vanished(key in self._finished), now_s)

    # ---- from destinations -------------------------------------------------------------------------------------------

    def on_reader(
        self,
        reader: str,
        message: wire.Pull | wire.Freeze | wire.Took | wire.Renew | wire.Release,
        now_s: float,
    ) -> list[SourceCommand]:
        """A message that came over the peer link named `reader`."""
        if isinstance(message, wire.Renew):
            for key in message.requests:
                self._handle(key, Spoken(reader, message), now_s)
            return []
        key = (message.request, message.epoch)
        match message:
            case wire.Took():
                offers = self._packed.get(key)
                return offers.took(message.blocks) if offers and offers.reader == reader else []
            case wire.Pull():
                return self._pull(key, reader, message, now_s)
            case wire.Freeze() | wire.Release():
                return self._handle(key, Spoken(reader, message), now_s)

    def _pull(self, key: Key, reader: str, message: wire.Pull, now_s: float) -> list[SourceCommand]:
        """A codec that we do not allow, or do not know, changes nothing."""
        if key not in self._departures:
            if key in self._finished or not message.live:
                reason = wire.GoneReason.UNKNOWN
                if key in self._finished:
                    reason = wire.GoneReason.FINISHED
                return [ToReader(reader, wire.Gone(*key, reason))]
            self._exposures += 1
            self._departures[key] = Departure(
                *key, "", self._lease_s, live=True, exposure=self._exposures
            )
        former = self._packed.pop(key, None)
        codec = next((each for each in self._packing.codecs if each == message.codec), None)
        if codec is not None:
            self._packed[key] = PackedOffers(reader, codec, self._packing, self._orders)
        commands = self._handle(key, Spoken(reader, message), now_s)
        return [*former.close(), *commands] if former else commands

    # ---- from whoever packs ------------------------------------------------------------------------------------------

    def on_packed(self, event: Packed) -> list[SourceCommand]:
        """The answer to an order; its reader may be gone by now, and then its slots are free."""
        offers = self._packed.get((event.request, event.epoch))
        return event.given_up() if offers is None else offers.on_packed(event)

    def reader_lost(self, reader: str, now_s: float) -> list[SourceCommand]:
        """A peer link is gone."""
        return self._handle_all(lambda one: one.reader == reader, ReaderLost(reader), now_s)

    def tick(self, now_s: float) -> list[SourceCommand]:
        """End the leases that nobody has renewed."""
        return self._handle_all(lambda one: True, Tick(), now_s)

    def validate(self) -> None:
        """Raises AssertionError when a state machine contradicts itself."""
        for departure in self._departures.values():
            departure.validate()
            assert departure.phase is not DeparturePhase.OVER, departure
        for key, offers in self._packed.items():
            assert self._departures[key].reader == offers.reader, offers

    def _handle_all(
        self, which: Callable[[Departure], bool], event: DepartureEvent, now_s: float
    ) -> list[SourceCommand]:
        keys = [key for key, departure in self._departures.items() if which(departure)]
        return [command for key in keys for command in self._handle(key, event, now_s)]

    def _handle(self, key: Key, event: DepartureEvent, now_s: float) -> list[SourceCommand]:
        departure = self._departures.get(key)
        if departure is None:
            return []
        commands: list[SourceCommand] = [*departure.handle(event, now_s)]
        if departure.phase is DeparturePhase.OVER:
            del self._departures[key]
        offers = self._packed.get(key)
        return commands if offers is None else self._pass_on(key, departure, offers, commands)

    def _pass_on(
        self, key: Key, departure: Departure, offers: PackedOffers, commands: list[SourceCommand]
    ) -> list[SourceCommand]:
        said = [passed for command in commands for passed in offers.pass_on(command)]
        if departure.phase is DeparturePhase.OVER or departure.reader != offers.reader:
            del self._packed[key]
            said += offers.close()
        return said

    def _remember(self, key: Key) -> None:
        self._finished[key] = None
        while len(self._finished) > FINISHED_MAX:
            self._finished.popitem(last=False)
