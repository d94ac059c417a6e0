"""A fleet without processes: workers that live, die, hang and refuse when told to. For tests."""

import asyncio

from tercet.cluster.events import Desired
from tercet.cluster.fleet import Lodger
from tercet.cluster.placement import Node, Room
from tercet.cluster.seat import seat_role
from tercet.cluster.status import ProcessFigures, WorkerFigures
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint, LoadFigures


class FakeProcess:
    """One worker process that exists only here. It is up as soon as it may be."""

    def __init__(
        self, worker: WorkerId, incarnation: Incarnation, places: set[Incarnation]
    ) -> None:
        self.worker, self.incarnation = worker, incarnation
        self._places = places
        self.refuses_start = ""
        """When set, `start` is refused with this reason."""
        self.fails_health = ""
        """When set, health checks are answered with this reason."""
        self.hung = False
        """When set, nothing is answered any more."""
        self.running = 0
        """Requests that it says it runs."""
        self.blocks_used = 0
        self.relieved: list[tuple[WorkerId, int]] = []
        """To whom it was to give something."""
        self.draining = False
        self.place = asyncio.Event()
        self.dead = asyncio.Event()
        self.stopped = False

    @property
    def address(self) -> Endpoint:
        role = seat_role(self.worker)
        return Endpoint(self.worker, self.incarnation, role, "127.0.0.2", 7000, "host")

    async def placed(self) -> None:
        await self.place.wait()
        await self._answer()

    async def start(self) -> Endpoint:
        await self._answer()
        if self.refuses_start:
            raise PeerRefused(self.refuses_start)
        return self.address

    async def endpoint(self) -> Endpoint | None:
        await self._answer()
        return self.address

    async def wait(self) -> None:
        await self.dead.wait()
        await self._answer()

    async def health(self) -> bool:
        await self._answer()
        if self.fails_health:
            raise PeerRefused(self.fails_health)
        return self.draining

    async def figures(self) -> ProcessFigures:
        await self._answer()
        load = LoadFigures(
            role=seat_role(self.worker),
            waiting=0,
            running=self.running,
            holding=0,
            pulling=0,
            pending_prefill_tokens=0,
            context_tokens=self.blocks_used,
            blocks_total=1024,
            blocks_used=self.blocks_used,
            draining=self.draining,
        )
        return ProcessFigures(pid=4711, worker=WorkerFigures(load=load))

    async def drain(self) -> None:
        await self._answer()
        self.draining = True

    async def relieve(self, to: WorkerId, tokens: int) -> None:
        await self._answer()
        self.relieved.append((to, tokens))

    async def stop(self) -> None:
        await self._answer()
        self.stopped = True

    def kill(self) -> None:
        self.die()
        self._places.discard(self.incarnation)

    def die(self) -> None:
        """End without being told to; the place stays reserved."""
        self.dead.set()

    async def _answer(self) -> None:
        if self.hung:
            await asyncio.Event().wait()
        if self.dead.is_set():
            raise PeerLost("killed")


class FakeFleet:
    """All processes ever started, by incarnation. With `full` nothing finds a place."""

    def __init__(self) -> None:
        self.processes: dict[Incarnation, FakeProcess] = {}
        self.places: set[Incarnation] = set()
        """Reserved, whether or not somebody sits there."""
        self.full = False
        self.refuses_start = ""
        self.wished: Desired | None = None
        """Outlives supervisors."""

    @property
    def living(self) -> list[FakeProcess]:
        return [p for p in self.processes.values() if not p.dead.is_set()]

    def start(self, worker: WorkerId, role: Role, incarnation: Incarnation) -> FakeProcess:
        assert role is seat_role(worker), f"{worker} started as {role}"
        process = FakeProcess(worker, incarnation, self.places)
        process.refuses_start = self.refuses_start
        if not self.full:
            process.place.set()
        self.processes[incarnation] = process
        self.places.add(incarnation)
        return process

    async def found(self) -> list[Lodger]:
        self.places &= {p.incarnation for p in self.living}
        return [Lodger(p.worker, p.incarnation, p) for p in self.living]

    async def wish(self) -> Desired | None:
        return self.wished

    async def remember(self, wish: Desired | None) -> None:
        self.wished = wish

    async def room(self) -> Room:
        return Room([Node({"CPU": 0.5}, {})], {"CPU": 0.5})
