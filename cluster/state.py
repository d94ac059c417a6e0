"""Which workers should exist against which do: events in, commands out.

Knows nothing of Ray, processes or sockets, and reads no clock: the time of an event comes with it. After every event the
same reconciliation runs, so that what is done next depends on what is, not on the way there.
"""

from collections import deque
from collections.abc import Callable, Iterator

from tercet.cluster.commands import (
    Command,
    DrainWorker,
    KillWorker,
    Publish,
    StartWorker,
    StopWorker,
)
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
from tercet.cluster.seat import Phase, Seat, seat_index, seat_name, seat_order, seat_role
from tercet.config import ControlConfig
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint, Membership

STORY_LINES_MAX = 64


class ClusterState:
    """The seats of all pools. `version` must be higher than any an earlier controller is likely to have published."""

    def __init__(
        self, control: ControlConfig, version: int, new_incarnation: Callable[[], Incarnation]
    ) -> None:
        self.seats: dict[WorkerId, Seat] = {}
        self.membership: Membership | None = None
        """What was published last; None until the first `Desired`."""
        self.story: deque[str] = deque(maxlen=STORY_LINES_MAX)
        """The last things that happened, for people."""
        self._control = control
        self._version = version
        self._new_incarnation = new_incarnation
        self.desired: Desired | None = None
        """The wish that is to be met."""

    @property
    def wake_at_s(self) -> float | None:
        """When a `Tick` is needed next; None when nothing waits for time to pass."""
        return min((s.due_s for s in self.seats.values() if s.phase is Phase.BACKOFF), default=None)

    def handle(self, event: Event, now_s: float) -> list[Command]:
        """Take in one event and return what must be done, in order; stale events yield nothing."""
        commands = [*self._apply(event, now_s), *self._reconcile(now_s)]
        return [*self._publication(), *commands]

    def validate(self) -> None:
        """Check every invariant; for tests, after each event."""
        for worker, seat in self.seats.items():
            assert worker == seat.worker, f"{worker} holds the seat of {seat.worker}"
            assert (seat.endpoint is not None) == (seat.phase is Phase.UP), f"{seat}"
            if seat.endpoint is not None:
                assert seat.endpoint.incarnation == seat.incarnation, f"{seat}"
        lives = [seat.incarnation for seat in self.seats.values()]
        assert len(lives) == len(set(lives)), f"an incarnation sits twice: {lives}"
        if self.membership is not None:
            assert self.membership.workers == self._endpoints(), "the published list is stale"
            assert self.membership.version == self._version, "the version is not the published one"

    # ---- events ------------------------------------------------------------------------------------------------------

    def _apply(self, event: Event, now_s: float) -> Iterator[Command]:
        match event:
            case Found():
                yield from self._adopt(event, now_s)
            case Desired():
                self.desired = event
            case VersionSeen(version):
                self._version = max(self._version, version)
            case Tick():
                pass
            case WorkerUp(endpoint):
                self._up(endpoint, now_s)
            case Placed() | StartFailed() | WorkerLost() | Drain() | Drained() | Stopped():
                yield from self._life(event, now_s)

    def _adopt(self, found: Found, now_s: float) -> Iterator[Command]:
        rival = self.seats.get(found.worker)
        if rival is not None:
            # Two lives of one seat: the former controller died between losing one and killing it.
            keep_rival = rival.phase is Phase.UP or found.endpoint is None
            loser = found.incarnation if keep_rival else rival.incarnation
            yield KillWorker(found.worker, loser)
            if keep_rival:
                return
        phase = Phase.STARTING if found.endpoint is None else Phase.UP
        self.seats[found.worker] = Seat(
            found.worker, found.incarnation, now_s, phase, endpoint=found.endpoint
        )
        self._tell(now_s, found.worker, f"adopted {found.incarnation}, {phase}")

    def _up(self, endpoint: Endpoint, now_s: float) -> None:
        seat = self._seat(endpoint.worker, endpoint.incarnation)
        if seat is None or seat.phase is not Phase.STARTING:
            return
        seat.move(Phase.UP, now_s)
        seat.endpoint = endpoint
        self._tell(now_s, seat.worker, f"up at {endpoint.host}:{endpoint.port}")

    def _life(
        self,
        event: Placed | StartFailed | WorkerLost | Drain | Drained | Stopped,
        now_s: float,
    ) -> Iterator[Command]:
        seat = self._seat(event.worker, event.incarnation)
        if seat is None:
            return
        match event, seat.phase:
            case Placed(), Phase.PENDING:
                seat.move(Phase.STARTING, now_s)
                self._tell(now_s, seat.worker, f"starting as {seat.incarnation}")
            case Drain(), Phase.UP:
                yield self._drain(seat, now_s)
            case Drained(left=left), Phase.DRAINING:
                told = f"stopped with {left}, after its time to drain" if left else "drained"
                yield self._stop(seat, told, now_s)
            case Stopped(), Phase.STOPPING:
                del self.seats[seat.worker]
                self._tell(now_s, seat.worker, "stopped")
            case (
                StartFailed(reason=reason) | WorkerLost(reason=reason),
                Phase.PENDING | Phase.STARTING | Phase.UP | Phase.DRAINING,
            ):
                seat.fail(reason, self._control, now_s)
                self._tell(now_s, seat.worker, f"lost ({reason}), failure {seat.failures} in a row")
                yield KillWorker(seat.worker, seat.incarnation)

    def _seat(self, worker: WorkerId, incarnation: Incarnation) -> Seat | None:
        """The seat, if it still is in the life the event speaks of."""
        seat = self.seats.get(worker)
        return seat if seat is not None and seat.incarnation == incarnation else None

    # ---- reconciliation ----------------------------------------------------------------------------------------------

    def _reconcile(self, now_s: float) -> Iterator[Command]:
        if self.desired is None:
            return
        for worker, seat in list(self.seats.items()):
            wanted = seat_index(worker) < self.desired.of(seat_role(worker))
            if not wanted:
                yield from self._dismiss(seat, self.desired.at_once, now_s)
            elif seat.phase is Phase.BACKOFF and seat.due_s <= now_s:
                seat.retry(self._new_incarnation(), now_s)
                yield StartWorker(worker, seat.role, seat.incarnation)
        for role in Role:
            for index in range(self.desired.of(role)):
                worker = seat_name(role, index)
                if worker not in self.seats:
                    seat = Seat(worker, self._new_incarnation(), now_s)
                    self.seats[worker] = seat
                    yield StartWorker(worker, role, seat.incarnation)

    def _dismiss(self, seat: Seat, at_once: bool, now_s: float) -> Iterator[Command]:
        """Nobody is wanted in this seat."""
        match seat.phase:
            case Phase.BACKOFF:
                del self.seats[seat.worker]
            case Phase.STOPPING:
                pass
            case Phase.UP if not at_once:
                yield self._drain(seat, now_s)
            case Phase.DRAINING if not at_once:
                pass
            case _:
                yield self._stop(seat, "not wanted any more", now_s)

    def _drain(self, seat: Seat, now_s: float) -> Command:
        seat.move(Phase.DRAINING, now_s)
        self._tell(now_s, seat.worker, "is to be drained")
        return DrainWorker(seat.worker, seat.incarnation)

    def _stop(self, seat: Seat, why: str, now_s: float) -> Command:
        graceful = seat.phase in (Phase.UP, Phase.DRAINING)
        seat.move(Phase.STOPPING, now_s)
        self._tell(now_s, seat.worker, why)
        return StopWorker(seat.worker, seat.incarnation, graceful)

    def _publication(self) -> Iterator[Command]:
        if self.desired is None:
            return
        last, endpoints = self.membership, self._endpoints()
        if last is not None and last.workers == endpoints and last.version == self._version:
            return
        self._version += 1
        self.membership = Membership(self._version, endpoints)
        yield Publish(self.membership)

    def _endpoints(self) -> tuple[Endpoint, ...]:
        seats = sorted(self.seats.values(), key=seat_order)
        return tuple(seat.endpoint for seat in seats if seat.endpoint is not None)

    def _tell(self, now_s: float, worker: WorkerId, what: str) -> None:
        self.story.append(f"{now_s:.1f} {worker} {what}")
