"""The one Ray actor of the control plane: a supervisor with a name.

Ray restarts it whenever it dies; it then adopts the workers that live. Nothing that serves a request waits for it.
"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import msgspec
from ray.actor import ActorClass

from tercet.clock import MonotonicClock, unix_time_s
from tercet.cluster.front_doors import FrontDoors
from tercet.cluster.ray_workers import RayFleet
from tercet.cluster.state import ClusterState
from tercet.cluster.status import ClusterStatus, FrontDoorReport
from tercet.cluster.supervisor import Supervisor
from tercet.config import ClusterConfig
from tercet.ids import WorkerId, new_incarnation

VERSIONS_PER_SECOND = 1000
"""A new controller's first version is the wall clock times this: above all that were published before it."""
CRASH_DELAY_S = 1.0
"""Before a controller that cannot go on exits, so that a persistent fault does not become a busy loop."""

logger = logging.getLogger(__name__)


class Controller:
    """Methods are called through Ray; structs travel as msgpack."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it, so that the event loop is there to start in
        self, config: bytes, worker_class: "ActorClass[Any]", run_dir: str
    ) -> None:
        self._encoded = config
        self._config = msgspec.msgpack.decode(config, type=ClusterConfig)
        self._clock = MonotonicClock()
        self._doors = FrontDoors(self._clock)
        state = ClusterState(
            self._config.control, unix_time_s() * VERSIONS_PER_SECOND, new_incarnation
        )
        fleet = RayFleet(self._config, worker_class, Path(run_dir))
        self._supervisor = Supervisor(self._config, fleet, state, self._clock, self._doors)
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self._supervisor.run()
        except Exception:
            logger.exception("the controller cannot go on; Ray starts it again")
            await asyncio.sleep(CRASH_DELAY_S)
            os._exit(1)

    async def config(self) -> bytes:
        """The `ClusterConfig` it was started with."""
        return self._encoded

    async def membership(self, after_version: int, wait_s: float, report: bytes) -> bytes | None:
        """A front door's poll: answers with `Membership` newer than `after_version`, or with None after `wait_s`."""
        self._doors.heard(msgspec.msgpack.decode(report, type=FrontDoorReport))
        news = await self._supervisor.membership(after_version, wait_s)
        return None if news is None else msgspec.msgpack.encode(news)

    async def status(self) -> bytes:
        """A `ClusterStatus`."""
        state, door = self._supervisor.state, self._config.front_door
        status = ClusterStatus(
            cluster=self._config.name,
            membership_version=state.membership.version if state.membership is not None else 0,
            http=f"{door.host}:{door.http_port}",
            workers=await self._supervisor.reports(),
            front_doors=self._doors.living(),
            controller_pid=os.getpid(),
            story=list(state.story),
        )
        return msgspec.msgpack.encode(status)

    async def drain(self, worker: str) -> str:
        """Have a worker emptied, then replaced where it is wanted; returns why not, or nothing once that has begun."""
        return await self._supervisor.drain(WorkerId(worker))

    async def scale(self, prefill: int | None, decode: int | None) -> str:
        """Have so many workers from now on, None leaves a pool as it is; returns why not, or nothing once that has begun."""
        return await self._supervisor.scale(prefill, decode)

    async def shutdown(self) -> None:
        """Stop every worker; returns when all are gone. The actor itself is its caller's to kill."""
        await self._supervisor.shutdown()
