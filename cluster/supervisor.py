"""Carries out what the cluster's state decides, and tells it what becomes of every worker process.

Everything happens in one event loop, so that the state needs no lock: a watch per worker turns its fate into events, a
timer turns time into ticks. Knows processes only through `Fleet`; it decides nothing.
"""

import asyncio

from tercet.clock import Clock
from tercet.cluster.census import Census
from tercet.cluster.commands import (
    Command,
    DrainWorker,
    KillWorker,
    Publish,
    StartWorker,
    StopWorker,
)
from tercet.cluster.drainage import drained
from tercet.cluster.events import (
    Desired,
    Drain,
    Drained,
    Event,
    Found,
    Placed,
    StartFailed,
    Stopped,
    Tick,
    VersionSeen,
    WorkerLost,
    WorkerUp,
)
from tercet.cluster.fleet import Fleet, Lodger, WorkerProcess
from tercet.cluster.front_doors import FrontDoors
from tercet.cluster.rebalancing import Rebalancing
from tercet.cluster.refusals import why_not_drain, why_not_scale
from tercet.cluster.seat import Phase
from tercet.cluster.state import ClusterState
from tercet.cluster.status import WorkerReport
from tercet.cluster.vigil import lost
from tercet.config import ClusterConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation, WorkerId
from tercet.wire import Endpoint, Membership

STOP_TIMEOUT_S = 10.0
"""How long a worker may take to end in good order before it is killed."""


class Supervisor:
    """Owner of the state, the watches and the timer, for as long as `run` runs."""

    def __init__(
        self,
        config: ClusterConfig,
        fleet: Fleet,
        state: ClusterState,
        clock: Clock,
        doors: FrontDoors,
    ) -> None:
        self.state = state
        self._config = config
        self._fleet = fleet
        self._clock = clock
        self._doors = doors
        self._processes: dict[Incarnation, WorkerProcess] = {}
        self._census = Census(config.pools, fleet, state, self._processes, clock)
        self._rebalancing = Rebalancing(config, self._census, state, self._processes, clock)
        self._group: asyncio.TaskGroup
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        """Set, and replaced by a fresh one, after every event."""
        self._adopted = asyncio.Event()

    async def run(self) -> None:
        """Adopt what lives, bring about what the configuration asks for, and keep it so until cancelled.

        Workers live on when it ends. An error in here ends it: a supervisor that has lost one watch is worth nothing.
        """
        try:
            async with asyncio.TaskGroup() as self._group:
                await self._adopt()
                await self._rebalancing.run()
                await asyncio.Event().wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def shutdown(self) -> None:
        """Stop every worker; returns when all are gone, at most a little later than `STOP_TIMEOUT_S`."""
        await self._adopted.wait()
        await self._fleet.remember(None)
        self._post(Desired(0, 0, at_once=True))
        while self.state.seats:
            await self._changed.wait()

    async def drain(self, worker: WorkerId) -> str:
        """Have a worker emptied, then replaced; returns why not, or nothing once that has begun."""
        await self._adopted.wait()
        reason = why_not_drain(self.state, worker)
        if not reason:
            self._post(Drain(worker, self.state.seats[worker].incarnation))
        return reason

    async def scale(self, prefill: int | None, decode: int | None) -> str:
        """Have so many workers from now on, None leaves a pool as it is; returns why not, or nothing once that has begun."""
        await self._adopted.wait()
        now = self.state.desired
        assert now is not None, "adopted"
        wish = Desired(
            now.prefill if prefill is None else prefill, now.decode if decode is None else decode
        )
        reason = why_not_scale(self.state, self._config.pools, wish.prefill, wish.decode)
        if not reason:
            await self._fleet.remember(wish)
            self._post(wish)
        return reason

    async def membership(self, after_version: int, wait_s: float) -> Membership | None:
        """The membership as soon as it is newer than `after_version`; None when `wait_s` passes without news."""
        try:
            async with asyncio.timeout(wait_s):
                await self._adopted.wait()
                self._post(VersionSeen(after_version))
                while (news := self._news(after_version)) is None:
                    await self._changed.wait()
                return news
        except TimeoutError:
            return None

    async def reports(self) -> list[WorkerReport]:
        """What there is to say about every seat; bounded by `census.FIGURES_TIMEOUT_S`."""
        return await self._census.reports()

    # ---- events in, commands out -------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        commands = self.state.handle(event, self._clock.now_s())
        for command in commands:
            self._execute(command)
        self._arm_timer()
        self._changed.set()
        self._changed = asyncio.Event()

    def _execute(self, command: Command) -> None:
        match command:
            case StartWorker(worker, role, incarnation):
                process = self._fleet.start(worker, role, incarnation)
                self._processes[incarnation] = process
                self._group.create_task(self._watch(Lodger(worker, incarnation, process)))
            case DrainWorker(worker, incarnation):
                process = self._processes[incarnation]
                self._group.create_task(self._drain(Lodger(worker, incarnation, process)))
            case StopWorker(worker, incarnation, graceful):
                self._group.create_task(self._stop(worker, incarnation, graceful))
            case KillWorker(_, incarnation):
                self._processes.pop(incarnation).kill()
            case Publish():
                pass  # whoever waits in `membership` is woken after every event and reads the state

    def _news(self, after_version: int) -> Membership | None:
        last = self.state.membership
        return last if last is not None and last.version > after_version else None

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wake_at_s = self.state.wake_at_s
        if wake_at_s is not None:
            delay_s = max(0.0, wake_at_s - self._clock.now_s())
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._post, Tick())

    # ---- watches -----------------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        lodgers = await self._fleet.found()
        endpoints = await asyncio.gather(*(self._endpoint(lodger.process) for lodger in lodgers))
        # Nothing may happen between what is there and what is wanted: nobody is restarted or drained without a wish.
        wish = await self._fleet.wish()
        for lodger, endpoint in zip(lodgers, endpoints, strict=True):
            self._processes[lodger.incarnation] = lodger.process
            self._post(Found(lodger.worker, lodger.incarnation, endpoint))
        for lodger, endpoint in zip(lodgers, endpoints, strict=True):
            if lodger.incarnation in self._processes:  # else it was one life of a seat too many
                since = Phase.STARTING if endpoint is None else Phase.UP
                self._group.create_task(self._watch(lodger, since))
        pools = self._config.pools
        self._post(wish or Desired(pools.prefill.replicas, pools.decode.replicas))
        self._adopted.set()

    async def _watch(self, lodger: Lodger, since: Phase = Phase.PENDING) -> None:
        """Follow one worker to its end, from the phase in which it was met."""
        worker, incarnation, process = lodger
        try:
            if since is Phase.PENDING:
                await process.placed()
                self._post(Placed(worker, incarnation))
            if since is not Phase.UP:
                async with asyncio.timeout(self._config.control.start_timeout_s):
                    self._post(WorkerUp(await process.start()))
            reason = await lost(
                process, self._config.control, lambda: self._post(Drain(worker, incarnation))
            )
        except TimeoutError:
            limit_s = self._config.control.start_timeout_s
            self._post(StartFailed(worker, incarnation, f"did not start within {limit_s:g} s"))
        except PeerRefused as exc:
            self._post(StartFailed(worker, incarnation, str(exc)))
        except PeerLost as exc:
            self._post(WorkerLost(worker, incarnation, str(exc)))
        else:
            self._post(WorkerLost(worker, incarnation, reason))

    async def _drain(self, lodger: Lodger) -> None:
        worker, incarnation, process = lodger
        last = self.state.membership
        assert last is not None, "whoever drains was left out of it"
        limit_s = self._config.control.drain_timeout_s
        try:
            left = await drained(
                process, lambda: self._doors.use(incarnation, last.version), limit_s
            )
        except PeerLost:
            return  # the watch tells
        except PeerRefused as exc:
            left = f"what it has, since it cannot be drained ({exc})"
        self._post(Drained(worker, incarnation, left))

    async def _stop(self, worker: WorkerId, incarnation: Incarnation, graceful: bool) -> None:
        process = self._processes.pop(incarnation)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S if graceful else 0.0):
                await process.stop()
        except (TimeoutError, PeerLost, PeerRefused) as exc:
            if graceful:
                self.state.story.append(f"{worker} did not end in good order: {exc!r}")
        process.kill()
        self._post(Stopped(worker, incarnation))

    async def _endpoint(self, process: WorkerProcess) -> Endpoint | None:
        """Where a found worker listens; None when it does not say so soon, and is then watched from its start."""
        try:
            async with asyncio.timeout(self._config.control.health_timeout_s):
                return await process.endpoint()
        except (TimeoutError, PeerLost, PeerRefused):
            return None
