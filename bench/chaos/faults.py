"""Who disturbs: kills, hangs, drains and moves at random, never so many at once that nobody is left to go to."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from tercet.app import Cluster
from tercet.cluster.seat import Phase
from tercet.cluster.status import ClusterStatus, WorkerReport
from tercet.errors import TercetError
from tercet.role import Role

AWAY_MAX = 2
"""Workers that are down, hung or draining at the same time."""
HANG_S = (0.2, 8.0)
"""Shorter and longer than it takes to be given up."""
PERIOD_S = 3.0
"""Between two faults, on average."""


@dataclass
class Happened:
    """What was done, and what came of moves."""

    faults: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    story: list[str] = field(default_factory=list)


class Adversary:
    """`running` are the ids of requests that can be moved."""

    def __init__(self, cluster: Cluster, running: set[str], seed: int) -> None:
        self._cluster, self._running = cluster, running
        self._dice = random.Random(seed)
        self._hung: set[int] = set()
        self.happened = Happened()
        self._faults: Sequence[tuple[float, Callable[[], Awaitable[str]]]] = (
            (2.0, self.kill),
            (2.0, self.hang),
            (1.0, self.drain),
            (0.3, self.kill_controller),
            (6.0, self.move),
        )

    async def disturb(self, until_s: float) -> Happened:
        """Until then; afterwards nobody is left hanging."""
        began_s = time.monotonic()
        weights, faults = zip(*self._faults, strict=True)
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < until_s:
                (fault,) = self._dice.choices(faults, weights)
                name = fault.__name__
                group.create_task(self._do(name, fault, began_s))
                await asyncio.sleep(self._dice.expovariate(1 / PERIOD_S))
        return self.happened

    async def _do(self, name: str, fault: Callable[[], Awaitable[str]], began_s: float) -> None:
        try:
            what = await fault()
        except (TercetError, httpx.HTTPError) as exc:
            self.happened.refused[name] += 1
            what = f"not done: {exc}"
        else:
            if what:
                self.happened.faults[name] += 1
        if what:
            self.happened.story.append(f"{time.monotonic() - began_s:7.1f} s  {name}: {what}")

    # ---- faults: each says what it did, or nothing when there was nothing to do it to --------------------------------

    async def kill(self) -> str:
        victim = await self._victim()
        if victim is None:
            return ""
        os.kill(_pid(victim), signal.SIGKILL)
        return f"{victim.worker} ({_pid(victim)})"

    async def hang(self) -> str:
        victim = await self._victim()
        if victim is None:
            return ""
        pid, hang_s = _pid(victim), self._dice.uniform(*HANG_S)
        self._hung.add(pid)
        try:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(hang_s)
        finally:
            self._hung.discard(pid)
            with suppress(ProcessLookupError):  # it may have been given up and replaced meanwhile
                os.kill(pid, signal.SIGCONT)
        return f"{victim.worker} ({pid}) for {hang_s:.1f} s"

    async def drain(self) -> str:
        victim = await self._victim()
        if victim is None:
            return ""
        await asyncio.to_thread(self._cluster.controller.drain, victim.worker)
        return victim.worker

    async def kill_controller(self) -> str:
        status = await self._status()
        os.kill(status.controller_pid, signal.SIGKILL)
        return str(status.controller_pid)

    async def move(self) -> str:
        if not self._running:
            return ""
        request = self._dice.choice(sorted(self._running))
        async with httpx.AsyncClient(base_url=f"http://{self._cluster.http}") as http:
            reply = await http.post(f"/tercet/requests/{request}/move", json={})
        if reply.status_code == httpx.codes.ACCEPTED:
            return request
        self.happened.refused["move"] += 1
        return ""

    # ---- whom --------------------------------------------------------------------------------------------------------

    async def _status(self) -> ClusterStatus:
        return await asyncio.to_thread(self._cluster.controller.status)

    async def _victim(self) -> WorkerReport | None:
        """Somebody who is up, if enough others are, of its own role too."""
        workers = (await self._status()).workers
        up = [
            one
            for one in workers
            if one.phase is Phase.UP and one.figures and _pid(one) not in self._hung
        ]
        if len(workers) - len(up) >= AWAY_MAX:
            return None
        spare = [one for one in up if one.role is not Role.DECODE or _count(up, one.role) > 1]
        return self._dice.choice(spare) if spare else None


def _pid(report: WorkerReport) -> int:
    assert report.figures is not None, report
    return report.figures.pid


def _count(reports: Sequence[WorkerReport], role: Role) -> int:
    return sum(report.role is role for report in reports)
