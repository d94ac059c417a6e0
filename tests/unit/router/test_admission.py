"""Places, the queue before them, and what those who are sent away are told."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from tercet.clock import ManualClock
from tercet.errors import Overloaded
from tercet.router.admission import RETRY_AFTER_S_MAX, RETRY_AFTER_S_UNKNOWN, Admission


def admission(
    places: int = 1, queue_max: int = 8, wait_s: float = 5.0, clock: ManualClock | None = None
) -> Admission:
    return Admission(
        places=places, queue_max=queue_max, queue_wait_s_max=wait_s, clock=clock or ManualClock()
    )


async def settle() -> None:
    """Let everything that can run, run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_places_are_bounded_and_returned() -> None:
    door = admission(places=2, queue_max=0)
    async with door.place(0), door.place(0):
        assert door.in_flight == 2
        with pytest.raises(Overloaded, match="queue is full"):
            async with door.place(0):
                pytest.fail("no place was free")
    assert (door.in_flight, door.queued, door.turned_away) == (0, 0, 1)


async def test_the_queue_serves_higher_priority_first_then_first_come() -> None:
    door, served = admission(), []

    async def client(name: str, priority: int) -> None:
        async with door.place(priority):
            served.append(name)

    async with asyncio.TaskGroup() as group, door.place(0):
        for name, priority in (("a", 0), ("b", 0), ("urgent", 5), ("later", -1)):
            group.create_task(client(name, priority))
            await settle()
        assert door.queued == 4
    assert served == ["urgent", "a", "b", "later"]
    assert (door.in_flight, door.queued) == (0, 0)


async def test_cancelling_in_the_queue_frees_the_place_there() -> None:
    door = admission(queue_max=1)

    async def client() -> None:
        async with door.place(0):
            pytest.fail("it was cancelled")

    async with door.place(0):
        task = asyncio.create_task(client())
        await settle()
        assert door.queued == 1
        task.cancel()
        await settle()
        assert door.queued == 0
    assert door.in_flight == 0


async def test_a_place_given_in_the_moment_of_cancellation_goes_on() -> None:
    """The task was handed the place and cancelled before it ran again."""
    door, got = admission(), asyncio.Event()

    async def loser() -> None:
        async with door.place(0):
            pytest.fail("it was cancelled")

    async def winner() -> None:
        async with door.place(0):
            got.set()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(door.place(0))
        first, second = asyncio.create_task(loser()), asyncio.create_task(winner())
        await settle()
        await stack.aclose()
        first.cancel()
        await second
    assert got.is_set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (door.in_flight, door.queued) == (0, 0)


async def test_a_waiter_cancelled_before_its_turn_is_skipped() -> None:
    """It is still in the queue when the place is freed, because its task has not run since."""
    door = admission()

    async def client() -> None:
        async with door.place(0):
            await asyncio.sleep(0)

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(door.place(0))
        first, second = asyncio.create_task(client()), asyncio.create_task(client())
        await settle()
        first.cancel()
        await stack.aclose()
        await second
    assert (door.in_flight, door.queued) == (0, 0)
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize(("own_s", "limit_s"), [(0.01, None), (5.0, 0.01)])
async def test_waiting_is_bounded_by_the_queue_and_by_the_client(
    own_s: float, limit_s: float | None
) -> None:
    door = admission(wait_s=own_s)
    async with door.place(0):
        with pytest.raises(Overloaded, match=r"within 0\.01 s"):
            async with door.place(0, limit_s):
                pytest.fail("no place was free")
    assert (door.in_flight, door.queued) == (0, 0)


async def test_retry_after_is_the_queue_over_the_drain_rate() -> None:
    clock = ManualClock(100.0)
    door = admission(places=1, queue_max=8, clock=clock)
    assert door.retry_after_s() == RETRY_AFTER_S_UNKNOWN
    for _ in range(10):
        clock.advance(0.5)
        async with door.place(0):
            pass
    assert door.retry_after_s() == pytest.approx(4.5 / 10, rel=0.01)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(door.place(0))
        waiting = [asyncio.create_task(door.place(0).__aenter__()) for _ in range(3)]
        await settle()
        assert door.retry_after_s() == pytest.approx(4 * 4.5 / 10, rel=0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    clock.advance(1000.0)
    assert door.retry_after_s() <= RETRY_AFTER_S_MAX
