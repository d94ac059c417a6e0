"""The links to front doors: their orders come in, tokens and load reports go out. Knows nothing of what orders lead to."""

import itertools
import logging
from typing import Protocol

from tercet.errors import PeerLost
from tercet.link import Link
from tercet.wire import (
    Adopt,
    Cancel,
    Failed,
    HandedOff,
    Hello,
    Learned,
    LoadReport,
    Message,
    MoveWanted,
    Refused,
    Resume,
    Stalled,
    Started,
    Submit,
    Tokens,
)
from tercet.workers.relay import Relay

logger = logging.getLogger(__name__)

ToFrontDoor = (
    Started | Tokens | HandedOff | Stalled | Refused | Failed | MoveWanted | LoadReport | Learned
)


class Orders(Protocol):
    """What front doors may ask for. `owner` names the session that asks; it dies with its link."""

    def submit(self, owner: str, order: Submit) -> None: ...
    def adopt(self, owner: str, order: Adopt) -> None: ...
    def resume(self, owner: str, order: Resume) -> None: ...
    def cancel(self, order: Cancel) -> None: ...
    def owner_lost(self, owner: str) -> None: ...


class Sessions:
    """All front doors that are connected. Used on the event loop only."""

    def __init__(self, orders: Orders) -> None:
        self.relay = Relay()
        self._orders = orders
        self._links: dict[str, Link[Message]] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._links)

    async def serve(self, hello: Hello, link: Link[Message]) -> None:
        """One session, to the end of its link; raises `PeerLost` then."""
        owner = f"{hello.sender}:{hello.incarnation}/{next(self._numbers)}"
        self._links[owner] = link
        if hello.learns:
            self.relay.join(owner)
        try:
            async for messages in link:
                for message in messages:
                    self._take(owner, message)
        finally:
            del self._links[owner]
            self.relay.leave(owner)
            self._orders.owner_lost(owner)

    def post(self, owner: str, message: ToFrontDoor) -> None:
        """Send to one session, if it is still there: what a lost front door owned is dropped elsewhere."""
        link = self._links.get(owner)
        if link is None:
            return
        try:
            link.post(message)
        except PeerLost as exc:
            logger.debug("nothing reaches %s any more: %s", owner, exc)  # `serve` is about to end

    def broadcast(self, report: LoadReport) -> None:
        """Tell all, and each what the others have sent here since the last report."""
        for owner in self._links:
            self.post(owner, report)
        for owner, names in self.relay.take().items():
            self.post(owner, Learned(names))

    def _take(self, owner: str, message: Message) -> None:
        match message:
            case Submit():
                self.relay.note(owner, message.names)
                self._orders.submit(owner, message)
            case Adopt():
                self.relay.note(owner, message.names)
                self._orders.adopt(owner, message)
            case Resume():
                self._orders.resume(owner, message)
            case Cancel():
                self._orders.cancel(message)
            case _:
                raise PeerLost(f"{owner} sent a {type(message).__name__}, which is no order")
