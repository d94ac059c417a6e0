"""The link to one worker: opened when it can be, reopened when it was lost, and honest about silence."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from tercet.clock import ManualClock
from tercet.config import LinkConfig
from tercet.ids import Epoch, Incarnation, RequestId, WorkerId, new_incarnation
from tercet.link import host_id
from tercet.role import Role
from tercet.router.events import WorkerWord
from tercet.router.fake_worker import FakeWorker
from tercet.router.session import Session
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, MoveWanted, Refused

CONFIG = LinkConfig(heartbeat_s=0.2, dead_after_s=0.6, report_period_s=0.05)


class Diary:
    """Notes what a session tells."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def heard(self, word: WorkerWord) -> None:
        self.events.append("heard")

    def reported(self, worker: Endpoint) -> None:
        self.events.append("reported")

    def learned(self, worker: Endpoint, names: bytes) -> None:
        self.events.append("learned")

    def wanted(self, worker: Endpoint, wish: MoveWanted) -> None:
        self.events.append("wanted")

    def connected(self, worker: Endpoint) -> None:
        self.events.append("connected")

    def lost(self, worker: Endpoint, reason: str) -> None:
        self.events.append("lost")

    async def tells(self, event: str, times: int = 1) -> None:
        """Wait until it has."""
        async with asyncio.timeout(60):
            while self.events.count(event) < times:  # noqa: ASYNC110 - others write it
                await asyncio.sleep(0.005)


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    fake = FakeWorker(WorkerId("decode-0"), Role.DECODE, cluster="c", link=CONFIG, peers={})
    yield fake
    await fake.stop()


Begin = Callable[[Endpoint], Awaitable[Session]]


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def begin(diary: Diary, clock: ManualClock) -> AsyncIterator[Begin]:
    """Starts sessions and ends them."""
    tasks: list[asyncio.Task[None]] = []

    async def start(endpoint: Endpoint) -> Session:
        hello = Hello(PROTOCOL_VERSION, "c", "door", new_incarnation(), endpoint.incarnation)
        session = Session(
            endpoint, hello, config=CONFIG, host_id=host_id(), clock=clock, listener=diary
        )
        tasks.append(asyncio.create_task(session.run()))
        return session

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_session_connects_reports_and_tells_a_loss_once(
    worker: FakeWorker, diary: Diary, begin: Begin
) -> None:
    session = await begin(await worker.start())
    await diary.tells("reported", times=2)
    assert session.usable
    assert session.report is not None
    await worker.stop()
    await diary.tells("lost")
    assert not session.connected
    await asyncio.sleep(0.2)
    assert diary.events.count("lost") == 1, "failing to reconnect is no further loss"
    assert diary.events.count("connected") == 1


async def test_an_unreachable_worker_is_tried_until_it_is_there(
    worker: FakeWorker, diary: Diary, begin: Begin, tmp_path: Path
) -> None:
    path = tmp_path / "worker.sock"
    endpoint = await worker.start(path)
    await worker.stop()
    session = await begin(endpoint)
    await asyncio.sleep(0.15)
    assert diary.events == []
    await worker.start(path)
    await diary.tells("connected")
    assert session.usable


async def test_another_life_at_the_same_address_is_not_this_worker(
    worker: FakeWorker, diary: Diary, begin: Begin
) -> None:
    endpoint = await worker.start()
    former = msgspec.structs.replace(endpoint, incarnation=Incarnation("former"))
    session = await begin(former)
    await asyncio.sleep(0.2)
    assert not session.connected
    assert diary.events == []


async def test_missing_reports_make_a_worker_suspect_and_one_report_clears_it(
    worker: FakeWorker, diary: Diary, begin: Begin, clock: ManualClock
) -> None:
    session = await begin(await worker.start())
    await diary.tells("reported")
    clock.advance(0.2)
    assert not session.suspect(clock.now_s())
    clock.advance(0.01)
    assert session.suspect(clock.now_s())
    await diary.tells("reported", times=diary.events.count("reported") + 2)
    assert not session.suspect(clock.now_s())


async def test_a_retired_session_is_not_opened_again(
    worker: FakeWorker, diary: Diary, begin: Begin
) -> None:
    session = await begin(await worker.start())
    await diary.tells("connected")
    session.retired = True
    assert session.connected
    assert not session.usable
    await worker.stop()
    await diary.tells("lost")
    await asyncio.sleep(0.2)
    assert diary.events.count("connected") == 1


async def test_a_refusal_corrects_the_report_before_it_is_told(
    worker: FakeWorker, diary: Diary, begin: Begin
) -> None:
    """Who plans again by it must know both: what the worker has to do, and that it takes nothing."""
    session = await begin(await worker.start())
    await diary.tells("reported")
    assert session.report is not None
    known, diary.events = session.report.pending_prefill_tokens, []
    refused = Refused(RequestId("r"), Epoch(0), "busy", 0.5, pending_tokens=known + 7000)
    session._deliver([refused])
    assert diary.events == ["heard", "reported"]
    assert session.report.pending_prefill_tokens == known + 7000
    session._deliver([Refused(RequestId("r"), Epoch(0), "no blocks", 0.5)])
    assert diary.events == ["heard", "reported", "heard"], "it brought no figures"
