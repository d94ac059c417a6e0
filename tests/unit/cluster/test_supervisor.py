"""The supervisor against a fleet whose workers die, hang and refuse on command."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from tercet.clock import MonotonicClock
from tercet.cluster.events import Desired
from tercet.cluster.fake import FakeFleet, FakeProcess
from tercet.cluster.front_doors import FrontDoors
from tercet.cluster.seat import Phase
from tercet.cluster.state import ClusterState
from tercet.cluster.status import FrontDoorReport
from tercet.cluster.supervisor import Supervisor
from tercet.config import (
    ClusterConfig,
    ControlConfig,
    MigrationConfig,
    ModelConfig,
    PoolConfig,
    Pools,
)
from tercet.ids import FrontDoorId, WorkerId, new_incarnation
from tercet.role import Role

D0 = WorkerId("decode-0")
CONFIG = ClusterConfig(
    model=ModelConfig(path="m"),
    pools=Pools(prefill=PoolConfig(replicas=1), decode=PoolConfig(replicas=2)),
    control=ControlConfig(
        health_period_s=0.02,
        health_timeout_s=0.05,
        restart_backoff_s=0.02,
        start_timeout_s=0.1,
    ),
)


@pytest.fixture
def fleet() -> Iterator[FakeFleet]:
    fleet = FakeFleet()
    yield fleet
    assert fleet.places == {p.incarnation for p in fleet.living}, "a place without a worker is kept"


@asynccontextmanager
async def supervise(
    fleet: FakeFleet,
    version: int = 0,
    doors: FrontDoors | None = None,
    config: ClusterConfig = CONFIG,
) -> AsyncIterator[Supervisor]:
    state = ClusterState(config.control, version, new_incarnation)
    clock = MonotonicClock()
    doors = doors or FrontDoors(clock)
    supervisor = Supervisor(config, fleet, state, clock, doors)
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
    async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
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
        async with asyncio.timeout(60):
            await supervisor.shutdown()
        assert all(p.stopped for p in fleet.processes.values())
    assert fleet.living == []


async def test_shutdown_does_not_wait_for_workers_that_have_no_place(fleet):
    fleet.full = True
    async with supervise(fleet) as supervisor, asyncio.timeout(60):
        await supervisor.shutdown()
    assert fleet.living == []


def door(version: int, *busy: FakeProcess) -> FrontDoorReport:
    """A front door's poll."""
    lives = tuple(process.incarnation for process in busy)
    return FrontDoorReport(
        front_door=FrontDoorId("door"), grpc="", busy=lives, membership_version=version
    )


async def test_a_drained_worker_ends_when_it_is_empty_and_no_front_door_uses_it(fleet):
    doors = FrontDoors(MonotonicClock())
    async with supervise(fleet, doors=doors) as supervisor:
        version = await workers_up(supervisor, 3)
        old = sitting(fleet, D0)
        old.running = 1
        doors.heard(door(version, old))
        assert await supervisor.drain(D0) == ""
        version = await workers_up(supervisor, 2, after=version)
        await eventually(lambda: old.draining)
        old.running = 0
        await asyncio.sleep(0.5)
        assert supervisor.state.seats[D0].phase is Phase.DRAINING, "a front door has not heard yet"
        doors.heard(door(version, old))
        await asyncio.sleep(0.5)
        assert supervisor.state.seats[D0].phase is Phase.DRAINING, "a front door uses it"
        doors.heard(door(version))
        await workers_up(supervisor, 3, after=version)
        assert old.stopped
        assert sitting(fleet, D0).incarnation != old.incarnation
        assert supervisor.state.seats[D0].restarts == 0, "it was no failure"


async def test_a_worker_that_cannot_be_emptied_in_time_is_stopped_with_what_it_has(fleet):
    hasty = replace(CONFIG, control=replace(CONFIG.control, drain_timeout_s=0.5))
    async with supervise(fleet, config=hasty) as supervisor:
        version = await workers_up(supervisor, 3)
        old = sitting(fleet, D0)
        old.running = 2
        await supervisor.drain(D0)
        version = await workers_up(supervisor, 2, after=version)
        await workers_up(supervisor, 3, after=version)
        assert old.stopped
        assert any("stopped with 2 running" in line for line in supervisor.state.story)


async def test_a_worker_that_was_being_drained_is_drained_by_the_next_supervisor_too(fleet):
    async with supervise(fleet) as first:
        version = await workers_up(first, 3)
        old = sitting(fleet, D0)
        old.running = 1
        await first.drain(D0)
        await eventually(lambda: old.draining)
    async with supervise(fleet, version=version + 1) as second:
        await eventually(
            lambda: D0 in second.state.seats and second.state.seats[D0].phase is Phase.DRAINING
        )
        old.running = 0
        await eventually(lambda: old.stopped)


async def test_a_worker_that_hears_late_that_it_is_to_be_emptied_is_drained_by_who_watches_it_then(
    fleet,
):
    async with supervise(fleet) as supervisor:
        await workers_up(supervisor, 3)
        old = sitting(fleet, D0)
        old.draining = True  # a call of the supervisor before, which had been on its way
        await eventually(lambda: old.stopped)
        await eventually(lambda: supervisor.state.seats[D0].phase is Phase.UP)
        assert sitting(fleet, D0).incarnation != old.incarnation


async def test_nothing_is_done_about_who_was_found_before_it_is_known_who_is_wanted(fleet):
    async with supervise(fleet) as first:
        version = await workers_up(first, 3)
        await first.scale(None, 1)
        await eventually(lambda: len(fleet.living) == 2)
    known, remembered = asyncio.Event(), fleet.wish

    async def late_wish() -> Desired | None:
        await known.wait()
        return await remembered()

    fleet.wish = late_wish
    async with supervise(fleet, version) as second:
        sitting(fleet, D0).die()
        await asyncio.sleep(0.1)
        assert not second.state.seats
        known.set()
        await workers_up(second, 2)
        assert len(fleet.living) == 2


async def test_a_pool_that_was_made_smaller_stays_so_for_the_next_supervisor(fleet):
    async with supervise(fleet) as first:
        version = await workers_up(first, 3)
        assert "nothing is served" in await first.scale(None, 0)
        assert fleet.wished is None
        assert await first.scale(None, 1) == ""
        version = await workers_up(first, 2, after=version)
        await eventually(lambda: len(fleet.living) == 2)
    async with supervise(fleet, version) as second:
        await workers_up(second, 2)
        assert second.state.desired == Desired(1, 1)
        assert sorted(second.state.seats) == ["decode-0", "prefill-0"]
        assert await second.scale(2, 2) == ""
        await workers_up(second, 4)
        assert fleet.wished == Desired(2, 2)
        await second.shutdown()
        assert fleet.wished is None


async def test_a_full_worker_is_told_to_give_to_a_free_one(fleet):
    quick = replace(CONFIG, migration=MigrationConfig(period_s=0.02, dwell_s=0.05))
    async with supervise(fleet, config=quick) as supervisor:
        await workers_up(supervisor, 3)
        full, free = sitting(fleet, D0), sitting(fleet, WorkerId("decode-1"))
        full.running, full.blocks_used = 20, 1020
        await eventually(lambda: len(full.relieved) > 1)
        assert {to for to, _ in full.relieved} == {free.worker}
        full.hung = True
        await eventually(lambda: full.dead.is_set())
    assert free.relieved == sitting(fleet, WorkerId("prefill-0")).relieved == []


async def test_nobody_is_told_where_moves_are_not_wanted(fleet):
    still = replace(CONFIG, migration=MigrationConfig(enabled=False, period_s=0.02))
    async with supervise(fleet, config=still) as supervisor:
        await workers_up(supervisor, 3)
        full = sitting(fleet, D0)
        full.running, full.blocks_used = 20, 1020
        await asyncio.sleep(0.3)
        assert full.relieved == []
