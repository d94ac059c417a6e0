"""The links from workers that pull from us, and what `departures` orders because of them."""

import itertools
import logging
from collections.abc import Iterable

from tercet.clock import Clock
from tercet.errors import PeerLost
from tercet.link import Link
from tercet.wire import Freeze, Hello, Message, Pull, Release, Renew, Took
from tercet.workers import events
from tercet.workers.departures import Departures
from tercet.workers.engine_thread import EngineThread
from tercet.workers.move import Pack, Packed, SourceCommand, ToOwner, ToReader, Unstage
from tercet.workers.packing_thread import PackingThread
from tercet.workers.sessions import Sessions
from tercet.workers.transfer import Transfer

logger = logging.getLogger(__name__)


class Readers:
    """Used on the event loop only."""

    def __init__(
        self,
        departures: Departures,
        engine: EngineThread,
        transfer: Transfer,
        sessions: Sessions,
        clock: Clock,
        packing: PackingThread | None = None,
    ) -> None:
        """Without `packing` the terms of `departures` must allow no codec."""
        self._departures = departures
        self._engine = engine
        self._transfer = transfer
        self._sessions = sessions
        self._clock = clock
        self._packing = packing
        self._links: dict[str, Link[Message]] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._links)

    async def serve(self, hello: Hello, link: Link[Message]) -> None:
        """One peer link, to its end; raises `PeerLost` then."""
        reader = f"{hello.sender}:{hello.incarnation}/{next(self._numbers)}"
        self._links[reader] = link
        try:
            async for messages in link:
                for message in messages:
                    if not isinstance(message, Pull | Freeze | Took | Renew | Release):
                        raise PeerLost(f"{reader} sent a {type(message).__name__}")
                    self.carry_out(self._departures.on_reader(reader, message, self._clock.now_s()))
        finally:
            del self._links[reader]
            self.carry_out(self._departures.reader_lost(reader, self._clock.now_s()))

    def on_engine(
        self, event: events.Published | events.Held | events.Ended | events.Absent | events.Said
    ) -> None:
        self.carry_out(self._departures.on_engine(event, self._clock.now_s()))

    def on_packed(self, event: Packed) -> None:
        self.carry_out(self._departures.on_packed(event))

    def tick(self) -> None:
        self.carry_out(self._departures.tick(self._clock.now_s()))

    def carry_out(self, commands: Iterable[SourceCommand]) -> None:
        for command in commands:
            match command:
                case ToReader():
                    self._post(command)
                case ToOwner():
                    self._sessions.post(command.owner, command.message)
                case Pack():
                    self._pack(command)
                case Unstage():
                    assert self._packing is not None, command
                    self._packing.unstage(command)
                case _:
                    self._engine.post(command)
        self._transfer.expect_readers(self._departures.leases)

    def _pack(self, order: Pack) -> None:
        """Where there is no room nobody waits for it."""
        assert self._packing is not None, order
        if not self._packing.pack(order):
            self.on_packed(Packed(order.request, order.epoch, order.number))

    def _post(self, command: ToReader) -> None:
        link = self._links.get(command.reader)
        if link is None:
            return
        try:
            link.post(command.message)
        except PeerLost as exc:
            logger.debug("nothing reaches %s any more: %s", command.reader, exc)  # see `serve`
