"""Known bugs of control planes, planted like those of `mutations`; with them the list is complete."""

from collections.abc import Iterator
from unittest import mock

from faults.climate import Theme
from faults.mutations import MUTATIONS, mutation
from tercet.cluster.commands import Command, KillWorker
from tercet.cluster.events import Event, Found, VersionSeen
from tercet.cluster.fleet import WorkerProcess
from tercet.cluster.seat import Phase, Seat
from tercet.cluster.state import ClusterState
from tercet.cluster.supervisor import Supervisor
from tercet.cluster.vigil import lost
from tercet.config import ControlConfig
from tercet.ids import Incarnation
from tercet.router.session import Session

__all__ = ["MUTATIONS"]


@mutation(Theme.CONTROL)
def who_drains_is_published() -> Iterator[None]:
    """A worker that is to be emptied stays in the membership, so front doors go on sending requests there."""
    move = Seat.move

    def keeps(self: Seat, phase: Phase, now_s: float) -> None:
        endpoint = self.endpoint
        move(self, phase, now_s)
        self.endpoint = endpoint if phase is Phase.DRAINING else self.endpoint

    with mock.patch.object(Seat, "move", keeps):
        yield


@mutation(Theme.CONTROL)
def a_worker_comes_back_under_its_former_incarnation() -> Iterator[None]:
    """Event of the life that has ended is taken for news of the one that begins."""
    retry = Seat.retry

    def retries(self: Seat, incarnation: Incarnation, now_s: float) -> None:
        retry(self, self.incarnation, now_s)

    with mock.patch.object(Seat, "retry", retries):
        yield


@mutation(Theme.CONTROL)
def a_controller_begins_again_with_versions_that_were_there() -> Iterator[None]:
    """Its clock is behind, and what front doors say of their version is not heeded: they never hear of it."""
    apply = ClusterState._apply

    def deaf(self: ClusterState, event: Event, now_s: float) -> Iterator[Command]:
        return iter(()) if isinstance(event, VersionSeen) else apply(self, event, now_s)

    with mock.patch.object(ClusterState, "_apply", deaf):
        yield


@mutation(Theme.CONTROL)
def who_was_lost_is_not_killed() -> Iterator[None]:
    """It answered no health check in time and is taken for dead; but it lives, and serves whoever is connected."""
    execute = Supervisor._execute

    def spares(self: Supervisor, command: Command) -> None:
        if not isinstance(command, KillWorker):
            execute(self, command)

    with mock.patch.object(Supervisor, "_execute", spares):
        yield


@mutation(Theme.CONTROL)
def two_lives_of_a_seat_are_adopted() -> Iterator[None]:
    """The later one takes the seat, and nobody ends the other."""
    adopt = ClusterState._adopt

    def takes_all(self: ClusterState, found: Found, now_s: float) -> Iterator[Command]:
        self.seats.pop(found.worker, None)
        return adopt(self, found, now_s)

    with mock.patch.object(ClusterState, "_adopt", takes_all):
        yield


@mutation(Theme.CONTROL)
def the_next_controller_does_not_see_who_drains() -> Iterator[None]:
    """The one before had told the worker, which waits for its end since."""

    async def blind(process: WorkerProcess, control: ControlConfig, drains: object) -> str:
        return await lost(process, control, lambda: None)

    with mock.patch("tercet.cluster.supervisor.lost", blind):
        yield


@mutation(Theme.CONTROL)
def a_front_door_goes_by_a_former_membership() -> Iterator[None]:
    """Who has left it is sent requests as long as the link stands."""
    member = property(lambda self: False, lambda self, _: None)
    with mock.patch.object(Session, "retired", member, create=True):
        yield
