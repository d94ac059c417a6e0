"""The worker's end of its sessions with front doors, over links that only remember."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from tercet.ids import Epoch, Incarnation, RequestId
from tercet.link import Link
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.wire import Adopt, Cancel, Endpoint, Hello, Learned, LoadReport, Message, Submit
from tercet.workers.sessions import Sessions

SPEC = RequestSpec(RequestId("r"), [1, 2, 3], Sampling())
SOURCE = Endpoint("p0", Incarnation("1"), Role.PREFILL, "h", 1, "h")  # type: ignore[arg-type]
REPORT = LoadReport(Role.DECODE, 0, 0, 0, 0, 0, 0, 64, 0)


class Orders:
    """Takes every order and does nothing."""

    def submit(self, owner: str, order: Submit) -> None: ...
    def adopt(self, owner: str, order: Adopt) -> None: ...
    def cancel(self, order: Cancel) -> None: ...
    def owner_lost(self, owner: str) -> None: ...


class Wire:
    """One front door's link."""

    def __init__(self) -> None:
        self.posted: list[Message] = []
        self._orders: asyncio.Queue[list[Message]] = asyncio.Queue()

    def post(self, *messages: Message) -> None:
        self.posted += messages

    async def order(self, *messages: Message) -> None:
        """Returns when the session has read it."""
        self._orders.put_nowait(list(messages))
        while not self._orders.empty():  # noqa: ASYNC110 - the session reads as soon as it may
            await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def __aiter__(self) -> AsyncIterator[list[Message]]:
        while True:
            yield await self._orders.get()

    @property
    def learned(self) -> list[bytes]:
        return [message.names for message in self.posted if isinstance(message, Learned)]


@asynccontextmanager
async def served(sessions: Sessions, name: str, *, learns: bool = True) -> AsyncIterator[Wire]:
    """A front door's link while it stands."""
    wire = Wire()
    hello = Hello(1, "c", name, Incarnation("1"), Incarnation("1"), learns=learns)
    task = asyncio.ensure_future(sessions.serve(hello, cast(Link[Message], wire)))
    await asyncio.sleep(0)
    yield wire
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_one_front_door_sends_the_others_learn_with_the_next_report() -> None:
    sessions = Sessions(Orders())
    async with served(sessions, "f") as one, served(sessions, "g") as other:
        await one.order(Submit(SPEC, Epoch(0), names=b"prefix-1"))
        await one.order(Adopt(SPEC, Epoch(1), SOURCE, Epoch(0), names=b"prefix-2"))
        assert other.learned == []
        sessions.broadcast(REPORT)
        assert (one.posted, other.posted) == (
            [REPORT],
            [REPORT, Learned(b"prefix-2prefix-1")],
        )
        sessions.broadcast(REPORT)
        assert len(other.learned) == 1


async def test_an_older_front_door_is_not_counted_and_told_nothing_that_it_could_not_read() -> None:
    sessions = Sessions(Orders())
    async with (
        served(sessions, "f") as one,
        served(sessions, "g") as other,
        served(sessions, "older", learns=False) as older,
    ):
        await one.order(Submit(SPEC, Epoch(0), names=b"prefix-1"))
        await older.order(Submit(SPEC, Epoch(0)))
        sessions.broadcast(REPORT)
        assert (len(sessions), len(sessions.relay)) == (3, 2)
        assert other.learned == [b"prefix-1"]
        assert older.posted == [REPORT]
    assert (len(sessions), len(sessions.relay)) == (0, 0), "all have left"
