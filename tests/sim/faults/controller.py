"""A simulated controller: the production supervisor and state machine on actors that live or die without it."""

from collections.abc import Coroutine

from faults.calls import Call
from faults.fleet import SimFleet
from faults.process import Process
from tercet.cluster.commands import Command
from tercet.cluster.events import Event, Tick, VersionSeen
from tercet.cluster.front_doors import FrontDoors
from tercet.cluster.seat import Phase, seat_name
from tercet.cluster.state import ClusterState
from tercet.cluster.status import FrontDoorReport
from tercet.cluster.supervisor import Supervisor
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import WorkerId
from tercet.role import Role

VERSIONS_PER_SECOND = 1000


class WatchedState(ClusterState):
    """Looked at after every event."""

    world: object

    def handle(self, event: Event, now_s: float) -> list[Command]:
        commands = super().handle(event, now_s)
        if commands or not isinstance(event, VersionSeen | Tick):
            self.validate()
        if self.world.story.wanted:
            self.world.story.tell("controller", f"hears {event}: {commands}")
        return commands


class Controller(Process):
    """One life of it. `clock_s` is the wall clock of its machine, which may be behind the one before."""

    def __init__(self, world: object, life: int, clock_s: float) -> None:
        super().__init__(f"controller:{life}", world.network)
        self.world, self.address = world, f"controller:{life}"
        self.loop.forgives = (PeerLost, PeerRefused)
        self.calls: dict[Call, None] = {}
        self.doors = FrontDoors(world.timeline)
        version = int(clock_s * VERSIONS_PER_SECOND)
        self.state = WatchedState(world.config.control, version, world.new_incarnation)
        self.state.world = world
        self.supervisor = Supervisor(
            world.config, SimFleet(self), self.state, world.timeline, self.doors
        )
        self.loop.call_soon(self._begin)

    def die(self) -> None:
        self.network.story.tell(self, "dies")
        self.loop.end()
        for call in list(self.calls):
            call.lose(self, self.world.chaos.ray_notices_s())

    # ---- what it is asked --------------------------------------------------------------------------------------------

    def take(self, call: Call, verb: str, *args: object) -> None:
        """A call arrives."""
        if self.alive:
            self.loop.call_soon(getattr(self, verb), call, *args)
        else:
            call.lose(self, 0.0)

    def membership(
        self, call: Call, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> None:
        self.doors.heard(report)
        self._serve(call, self.supervisor.membership(after_version, wait_s))

    def drain(self, call: Call, worker: WorkerId) -> None:
        self._serve(call, self.supervisor.drain(worker))

    def scale(self, call: Call, prefill: int | None, decode: int | None) -> None:
        self._serve(call, self.supervisor.scale(prefill, decode))

    def _begin(self) -> None:
        self.loop.create_task(self.supervisor.run())

    def _serve(self, call: Call, answer: Coroutine) -> None:
        self.loop.create_task(self._answer(call, answer))

    async def _answer(self, call: Call, answer: Coroutine) -> None:
        call.answer(await answer)

    # ---- in the end --------------------------------------------------------------------------------------------------

    def leftovers(self) -> list[str]:
        """What is not as the operator wants it."""
        state, desired, actors = self.state, self.state.desired, self.world.actors
        if desired is None or state.membership is None:
            return ["controller: has not adopted what lives"]
        wanted = {seat_name(role, i) for role in Role for i in range(desired.of(role))}
        found = [f"{seat}" for seat in state.seats.values() if seat.phase is not Phase.UP]
        if wanted != state.seats.keys():
            found.append(f"controller: has {list(state.seats)}, should have {wanted}")
        lives = {seat.incarnation for seat in state.seats.values()}
        found += [f"{actors[life]} has no seat" for life in actors.keys() - lives]
        found += [f"{life} is up and does not exist" for life in lives - actors.keys()]
        for worker in self.world.agents.values():
            if worker.board.draining:
                found.append(f"{worker} drains for nobody")
        for door in self.world.doors:
            if door.alive and door.version != state.membership.version:
                found.append(f"{door} is at {door.version}, not at {state.membership.version}")
        return found
