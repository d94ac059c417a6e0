"""How many requests are served at once, who waits, and who is sent away.

A bounded number of places and a bounded queue before them: higher priority first, then first come. Whoever finds the queue
full, or waits too long, is told when it is worth coming back, from the rate at which places have lately been freed.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tercet.clock import Clock
from tercet.errors import Overloaded

DEPARTURES = 64
"""Freed places remembered for the drain rate."""
DEPARTURES_S = 30.0
"""Older ones say nothing about now."""
RETRY_AFTER_S_MIN = 0.1
RETRY_AFTER_S_MAX = 60.0
RETRY_AFTER_S_UNKNOWN = 1.0


@dataclass(order=True, slots=True)
class Waiter:
    """One request in the queue; ordered as it will be served."""

    rank: tuple[int, int]
    """Negated priority, then arrival number."""
    turn: asyncio.Future[None] = field(compare=False)


class Admission:
    """Places and queue of one front door; belongs to one event loop."""

    def __init__(
        self, *, places: int, queue_max: int, queue_wait_s_max: float, clock: Clock
    ) -> None:
        self._places, self._queue_max, self._queue_wait_s_max = places, queue_max, queue_wait_s_max
        self._clock = clock
        self.turned_away = 0
        """Requests that got no place, since the start."""
        self._taken = 0
        self._arrivals = 0
        self._queue: list[Waiter] = []
        self._departures_s: deque[float] = deque(maxlen=DEPARTURES)

    @property
    def in_flight(self) -> int:
        """Places taken."""
        return self._taken

    @property
    def queued(self) -> int:
        """Requests waiting for a place."""
        return len(self._queue)

    @asynccontextmanager
    async def place(self, priority: int, wait_s_max: float | None = None) -> AsyncIterator[None]:
        """Hold a place for the length of the context. Raises `Overloaded` when the queue is full or the wait too long.

        Leaving while still queued, by cancellation too, frees the place in the queue at once.
        """
        await self._enter(priority, wait_s_max)
        try:
            yield
        finally:
            self._departures_s.append(self._clock.now_s())
            self._leave()

    def retry_after_s(self) -> float:
        """When a place for one more should be free: the queue's length over the rate at which places were freed."""
        now_s = self._clock.now_s()
        recent = [at_s for at_s in self._departures_s if now_s - at_s <= DEPARTURES_S]
        if len(recent) < 2:
            return RETRY_AFTER_S_UNKNOWN
        rate = len(recent) / max(now_s - recent[0], 1e-3)
        return min(max((self.queued + 1) / rate, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)

    async def _enter(self, priority: int, wait_s_max: float | None) -> None:
        if self._taken < self._places:
            self._taken += 1
            return
        if len(self._queue) >= self._queue_max:
            raise self._overloaded("the queue is full")
        limit_s = self._queue_wait_s_max
        if wait_s_max is not None:
            limit_s = min(limit_s, wait_s_max)
        waiter = self._line_up(priority)
        try:
            async with asyncio.timeout(limit_s):
                await waiter.turn
        except BaseException as exc:
            self._give_up(waiter)
            if isinstance(exc, TimeoutError):
                raise self._overloaded(f"no place became free within {limit_s:g} s") from None
            raise

    def _overloaded(self, reason: str) -> Overloaded:
        self.turned_away += 1
        return Overloaded(reason, self.retry_after_s())

    def _line_up(self, priority: int) -> Waiter:
        self._arrivals += 1
        turn = asyncio.get_running_loop().create_future()
        waiter = Waiter((-priority, self._arrivals), turn)
        heapq.heappush(self._queue, waiter)
        return waiter

    def _give_up(self, waiter: Waiter) -> None:
        """Out of the queue; a place that was given in this very moment goes to the next one."""
        if waiter in self._queue:
            self._queue.remove(waiter)
            heapq.heapify(self._queue)
        elif not waiter.turn.cancelled():
            self._leave()

    def _leave(self) -> None:
        """Hand the place on, or free it. A waiter whose task was cancelled has not left the queue yet."""
        while self._queue:
            waiter = heapq.heappop(self._queue)
            if not waiter.turn.done():
                waiter.turn.set_result(None)
                return
        self._taken -= 1
