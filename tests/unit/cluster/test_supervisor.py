"""The supervisor against a fleet whose workers die, hang and refuse on command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from tercet.clock import MonotonicClock
from tercet.cluster.fake import FakeFleet, FakeProcess
from tercet.cluster.seat import Phase
from tercet.cluster.state import ClusterState
from tercet.cluster.supervisor import Supervisor
from tercet.config import ClusterConfig, ControlConfig, ModelConfig, PoolConfig, Pools
from tercet.ids import WorkerId, new_incarnation
from tercet.role import Role

D0 = WorkerId("decode-0")
CONFIG = ClusterConfig(
    model=ModelConfig(path="m"),
    pools=Pools(prefill=PoolConfig(replicas=1), decode=PoolConfig(replicas=2)),
    control=ControlConfig(
        health_period_s=0.02, health_timeout_s=0.05, restart_backoff_s=0.02, start_timeout_s=0.1
    ),
)


@pytest.fixture
def fleet() -> Iterator[FakeFleet]:
    fleet = FakeFleet()
    yield fleet
    assert fleet.places == {p.incarnation for p in fleet.living}, "a place without a worker is kept"


@asynccontextmanager
async def supervise(fleet: FakeFleet, version: int = 0) -> AsyncIterator[Supervisor]:
    state = ClusterState(CONFIG.control, version, new_incarnation)
    supervisor = Supervisor(CONFIG, fleet, state, MonotonicClock())
    task = asyncio.create_task(supervisor.run())
    try:
        yield supervisor
        state.validate()
    finally:
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled(), task.exception()


async def workers_up(supervisor: Supervisor, count: int, after: int = 0) -> int:
    """Wait until `count` workers are published; returns the version."""
    while True:
        news = await supervisor.membership(after, 2.0)
        assert news is not None, f"no news after version {after}"
        if len(news.workers) == count:
            return news.version
        after = news.version


def sitting(fleet: FakeFleet, worker: WorkerId) -> FakeProcess:
    (process,) = [p for p in fleet.living if p.worker == worker]
    return process


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(2.0):
        while not holds():  # noqa: ASYNC110 -- the fake has no event for every condition
            await asyncio.sleep(0.005)


async def test_every_worker_wanted_is_started_and_published(fleet):
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        assert sorted(p.worker for p in fleet.living) == ["decode-0", "decode-1", "prefill-0"]


async def lose_by_death(process: FakeProcess) -> None:
    process.die()


async def lose_by_silence(process: FakeProcess) -> None:
    process.hung = True


async def lose_by_its_own_word(process: FakeProcess) -> None:
    process.fails_health = "one step has taken more than 60 s"


@pytest.mark.parametrize("lose", [lose_by_death, lose_by_silence, lose_by_its_own_word])
async def test_a_lost_worker_is_replaced_by_a_new_life(
    fleet, lose: Callable[[FakeProcess], Awaitable[None]]
):
    async with supervise(fleet) as supervisor:
        version = await workers_up(supervisor, 3)
        old = sitting(fleet, D0)
        await lose(old)
        await workers_up(supervisor, 3, after=version)
        assert old.dead.is_set()
        assert sitting(fleet, D0).incarnation != old.incarnation
        assert supervisor.state.seats[D0].restarts == 1


async def test_a_worker_that_refuses_to_start_is_retried_and_called_crash_looping(fleet):
    fleet.refuses_start = "no such checkpoint"
    async with supervise(fleet) as supervisor:
        seats = supervisor.state.seats
        await eventually(lambda: D0 in seats and seats[D0].crash_looping)
        report = {r.worker: r for r in await supervisor.reports()}[D0]
        assert report.crash_looping
        assert report.failures >= 3
        assert report.reason == "no such checkpoint"
        fleet.refuses_start = ""
        await workers_up(supervisor, 3)
    assert len(fleet.living) == 3


async def test_a_worker_without_a_place_waits_and_says_what_is_missing(fleet):
    fleet.full = True
    async with supervise(fleet) as supervisor:
        assert await supervisor.membership(1, 0.2) is None
        reports = await supervisor.reports()
        assert {r.phase for r in reports} == {Phase.PENDING}
        assert reports[0].reason == "no node of 1 can hold it; the nearest lacks CPU 0.5 of 1"
        for process in fleet.processes.values():
            process.place.set()
        await workers_up(supervisor, 3)


async def test_the_next_supervisor_adopts_the_living_without_starting_or_stopping_any(fleet):
    async with supervise(fleet) as first:
        version = await workers_up(first, 3)
    before = fleet.living
    async with supervise(fleet) as second:
        news = await second.membership(version, 2.0)
        assert news is not None
        assert news.version > version
        assert len(news.workers) == 3
        sitting(fleet, D0).die()
        await workers_up(second, 3, after=news.version)
    assert len(before) == 3
    assert len(fleet.processes) == 4


async def test_the_place_of_a_worker_that_died_unseen_is_free_for_the_next_supervisor(fleet):
    async with supervise(fleet) as first:
        await workers_up(first, 3)
    lost = sitting(fleet, D0)
    lost.die()
    async with supervise(fleet) as second:
        await workers_up(second, 3)
        assert lost.incarnation not in fleet.places


async def test_a_worker_that_hangs_while_it_is_adopted_is_replaced(fleet):
    hung = fleet.start(D0, Role.DECODE, new_incarnation())
    hung.hung = True
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        assert hung.dead.is_set()


async def test_a_health_answer_in_the_moment_of_the_end_does_not_keep_the_watch_alive(fleet):
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        (running,) = [t for t in asyncio.all_tasks() if t.get_coro().__name__ == "run"]

        async def answer_and_end() -> None:
            running.cancel()

        sitting(fleet, D0).health = answer_and_end
        async with asyncio.timeout(2.0):
            await asyncio.wait({running})


async def test_reports_carry_figures_of_those_that_answer(fleet):
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        reports = {r.worker: r for r in await supervisor.reports()}
        assert reports[D0].figures.pid == 4711
        assert reports[D0].address == "127.0.0.2:7000"


async def test_shutdown_asks_every_worker_to_end_and_leaves_none(fleet):
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        async with asyncio.timeout(2.0):
            await supervisor.shutdown()
        assert all(p.stopped for p in fleet.processes.values())
    assert fleet.living == []


async def test_shutdown_does_not_wait_for_workers_that_have_no_place(fleet):
    fleet.full = True
    async with supervise(fleet) as supervisor, asyncio.timeout(2.0):
        await supervisor.shutdown()
    assert fleet.living == []
