"""What Ray is to a controller: actors with workers in them that outlive it, and a place to remember the operator's wish."""

from collections.abc import Callable

from faults.calls import Call
from faults.process import Process
from faults.worker import Worker
from tercet.cluster.events import Desired
from tercet.cluster.fleet import Lodger
from tercet.cluster.placement import Room
from tercet.cluster.status import ProcessFigures, WorkerFigures
from tercet.errors import PeerRefused
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint

GRACE_S = (1e-4, 5e-3)
"""How long a worker takes to end in good order."""


class Actor:
    """The process around one life of a worker. It has a worker once it has started, and outlives one that has stopped."""

    def __init__(self, world: object, seat: WorkerId, role: Role, incarnation: Incarnation) -> None:
        self.world, self.seat, self.role, self.incarnation = world, seat, role, incarnation
        self.alive = True
        self.worker: Worker | None = None
        self.calls: dict[Call, None] = {}
        self._placed = self._loads = False
        self._ended: Exception | bool | None = False
        """False while the worker has not ended; else with what it did."""
        self._until: dict[str, list[Call]] = {"placed": [], "started": [], "ended": []}

    def __repr__(self) -> str:
        return f"{self.seat}:{self.incarnation}"

    # ---- life --------------------------------------------------------------------------------------------------------

    def place(self) -> None:
        """Ray has found a place."""
        self._placed = True
        self._tell("placed")

    def end(self, error: Exception | None = None) -> None:
        """The worker stops, or breaks; its process is still there."""
        if self.worker is not None and self.worker.alive:
            self.world.network.kill(self.worker)
            del self.world.agents[self.worker.name]
        if self._ended is False:
            self._ended = error
            self._tell("ended", error)

    def die(self, *, silent: bool = False) -> None:
        """Nothing is left of it; whoever waits for an answer notices sooner or later."""
        if not self.alive:
            return
        self.alive = False
        del self.world.actors[self.incarnation]
        if self.worker is not None and self.worker.alive:
            self.world.network.kill(self.worker, silent=silent)
            del self.world.agents[self.worker.name]
        else:
            self.world.story.tell(f"{self}", "ends")
        for call in list(self.calls):
            call.lose(self, self.world.chaos.ray_notices_s(silent=silent))

    # ---- what it is asked --------------------------------------------------------------------------------------------

    def take(self, call: Call, do: Callable[..., None], *args: object) -> None:
        """A call arrives; one whose process is stopped waits."""
        if not self.alive:
            call.lose(self, self.world.chaos.ray_notices_s())
        elif self.worker is not None and self.worker.stopped and self.worker.alive:
            self.worker.loop.call_soon(do, self, call, *args)
        else:
            do(self, call, *args)

    def when_placed(self, call: Call) -> None:
        if self._placed:
            call.answer()
        else:
            self._until["placed"].append(call)

    def start(self, call: Call) -> None:
        if self.worker is not None:
            call.answer(self.worker.endpoint)
            return
        self._until["started"].append(call)
        if not self._loads:
            self._loads = True
            takes_s, failure = self.world.chaos.loading()
            self.world.timeline.call_later(takes_s, self._loaded, failure)

    def endpoint(self, call: Call) -> None:
        call.answer(None if self.worker is None else self.worker.endpoint)

    def wait(self, call: Call) -> None:
        if self._ended is False:
            self._until["ended"].append(call)
        else:
            self._reply(call, self._ended)

    def health(self, call: Call) -> None:
        self._reply(call, self._ended or None, self.worker.board.draining)

    def figures(self, call: Call) -> None:
        board = self.worker.board
        figures = WorkerFigures(
            load=board.report(self.role),
            departures=len(board.departures),
            arrivals=len(board.arrivals),
        )
        call.answer(ProcessFigures(pid=1, worker=figures))

    def drain(self, call: Call) -> None:
        self.world.story.tell(self.worker, "is draining")
        self.worker.drain()
        call.answer()

    def relieve(self, call: Call, to: WorkerId, tokens: int) -> None:
        self.world.story.tell(self.worker, f"shall give {tokens} tokens to {to}")
        self.worker.board.relieve(tokens, to)
        call.answer()

    def stop(self, call: Call) -> None:
        self.world.timeline.call_later(self.world.chaos.dice.uniform(*GRACE_S), self._stopped, call)

    def _stopped(self, call: Call) -> None:
        if self.alive:
            self.end()
            call.answer()

    def _loaded(self, failure: Exception | None) -> None:
        if not self.alive:
            return
        if failure is not None:
            self._tell("started", failure)
            return
        self.worker = self.world.open_worker(self)
        self._tell("started", None, self.worker.endpoint)

    def _tell(self, what: str, error: Exception | None = None, value: object = None) -> None:
        calls, self._until[what] = self._until[what], []
        for call in calls:
            self._reply(call, error, value)

    def _reply(self, call: Call, error: Exception | None, value: object = None) -> None:
        if error is None:
            call.answer(value)
        else:
            call.refuse(error)


class Handle:
    """One controller's handle of an actor: a `WorkerProcess`."""

    def __init__(self, controller: Process, actor: Actor) -> None:
        self._controller, self._actor = controller, actor

    async def placed(self) -> None:
        await self._ask(Actor.when_placed)

    async def start(self) -> Endpoint:
        return await self._ask(Actor.start)

    async def endpoint(self) -> Endpoint | None:
        return await self._ask(Actor.endpoint)

    async def wait(self) -> None:
        await self._ask(Actor.wait)

    async def health(self) -> bool:
        return await self._ask(Actor.health)

    async def figures(self) -> ProcessFigures:
        return await self._ask(Actor.figures)

    async def drain(self) -> None:
        await self._ask(Actor.drain)

    async def relieve(self, to: WorkerId, tokens: int) -> None:
        await self._ask(Actor.relieve, to, tokens)

    async def stop(self) -> None:
        await self._ask(Actor.stop)

    def kill(self) -> None:
        takes_s = self._controller.world.chaos.reaches_s("kill", self._controller)
        if takes_s is not None:
            self._controller.world.timeline.call_later(takes_s, self._actor.die)

    async def _ask(self, do: Callable[..., None], *args: object) -> object:
        world, actor = self._controller.world, self._actor
        call = Call(self._controller, actor.calls)
        takes_s = world.chaos.reaches_s(do.__name__, self._controller)
        if takes_s is not None:
            world.timeline.call_later(takes_s, actor.take, call, do, *args)
        return await call.future


class SimFleet:
    """The `Fleet` of one controller."""

    def __init__(self, controller: Process) -> None:
        self._controller, self._world = controller, controller.world

    def start(self, worker: WorkerId, role: Role, incarnation: Incarnation) -> Handle:
        world = self._world
        actor = Actor(world, worker, role, incarnation)
        if world.chaos.reaches_s("start", self._controller) is None:
            actor.alive = False
        elif incarnation in world.incarnations:
            world.blame(f"{actor} is started a second time")
        else:
            world.incarnations.add(incarnation)
            world.actors[incarnation] = actor
            world.timeline.call_later(world.chaos.placing_s(), actor.place)
        return Handle(self._controller, actor)

    async def found(self) -> list[Lodger]:
        await self._talk("found")
        actors = list(self._world.actors.values())
        self._world.chaos.dice.shuffle(actors)
        return [Lodger(a.seat, a.incarnation, Handle(self._controller, a)) for a in actors]

    async def wish(self) -> Desired | None:
        await self._talk("wish")
        return self._world.wish

    async def remember(self, wish: Desired | None) -> None:
        await self._talk("remember")
        self._world.wish = wish
        await self._talk("remembered")

    async def room(self) -> Room:
        return Room((), {})

    async def _talk(self, what: str) -> None:
        """With Ray itself, which always answers."""
        answer = self._controller.loop.create_future()
        takes_s = self._world.chaos.reaches_s(what, self._controller)
        if takes_s is not None:
            self._controller.loop.call_later(takes_s, answer.set_result, None)
        await answer


def refused(reason: str) -> PeerRefused:
    return PeerRefused(f"RuntimeError: {reason}")
