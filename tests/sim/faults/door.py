"""A simulated front door: the production sessions and reception; and its clients, who know what they ought to be told."""

from dataclasses import dataclass

from faults import kv
from faults.climate import Theme
from faults.process import Process
from tercet.cluster.membership_feed import MembershipFeed
from tercet.cluster.status import FrontDoorReport
from tercet.errors import DeadlineExceeded, TercetError
from tercet.ids import FrontDoorId, Incarnation
from tercet.request import FinishReason, RequestSpec, TokenLogprobs
from tercet.router.events import WorkerWord
from tercet.router.reception import Reception
from tercet.router.record import Tally
from tercet.router.sessions import Sessions
from tercet.wire import Adopt, Endpoint, Membership, Message, MoveWanted, Submit

QUIET = (Theme.DOORS, Theme.SLOW)
"""Nothing is lost there that a client needs."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a client will ask for, and how long it has patience."""

    spec: RequestSpec
    at_s: float
    door: int = 0
    """Which one it goes to."""
    leaves_after_s: float | None = None
    deadline_s: float | None = None


class Client:
    """The sink of one request."""

    is_satisfied = False

    def __init__(self, world: object, order: Order) -> None:
        self.world, self.order, self.spec = world, order, order.spec
        sampling = order.spec.sampling
        self.wanted = kv.undisturbed(
            order.spec.prompt, sampling.max_tokens, sampling.stop_token_ids
        )
        self.told: list[int] = []
        self.over = self.left = False
        self.pilot = None

    def enter(self, door: "Door") -> None:
        reception = door.reception
        self.door, self.slot = door, reception.ledger.slot()
        tally = Tally(self.spec.id, len(self.spec.prompt), self.world.timeline.now_s())
        if self.world.story.wanted:
            self._tell(f"asks: {self.spec}")
        self.pilot = reception.admit(self.spec, self.slot, tally, self, self.order.deadline_s)
        if self.order.leaves_after_s is not None:
            door.loop.call_later(self.order.leaves_after_s, self.leave)

    def leave(self) -> None:
        """Of its own will, or because everything has been said."""
        if self.left:
            return
        self.over = self.left = True
        self._tell("leaves")
        with self.slot:
            self.door.reception.release(self.pilot)
        self.door.close_idle()

    # ---- what a sink is told -----------------------------------------------------------------------------------------

    def begun(self) -> None: ...

    def deliver(self, tokens: list[int], logprobs: list[TokenLogprobs] | None) -> None:
        self.told += tokens
        self._tell(f"reads {tokens}")
        if self.over:
            self._blame(f"was told {tokens} after its end")
        if self.told != self.wanted[: len(self.told)]:
            self._blame(f"was told {self.told}, should be {self.wanted}")
        wanted = None
        if self.spec.sampling.logprobs is not None:
            wanted = [kv.logprobs(token) for token in tokens]
        if logprobs != wanted:
            self._blame(f"was told log-probabilities {logprobs}, should be {wanted}")

    def finish(self, reason: FinishReason) -> None:
        self._tell(f"is done: {reason}")
        if self.told != self.wanted:
            self._blame(f"got {self.told} in all, should be {self.wanted}")
        replays = self.pilot.record().replays if self.world.chaos.climate.theme in QUIET else 0
        if replays:
            self._blame(f"was replayed {replays} times though nobody that it needs was lost")

    def fail(self, error: TercetError) -> None:
        self._tell(f"is failed: {error!r}")
        if isinstance(error, DeadlineExceeded) and self.order.deadline_s is not None:
            return
        self._blame(f"failed: {error!r}")

    def end(self) -> None:
        if not self.over:
            self.over = True
            self.door.loop.call_soon(self.leave)

    def _tell(self, what: str) -> None:
        self.world.story.tell(self.spec.id, what)

    def _blame(self, what: str) -> None:
        self.world.blame(f"{self.spec.id} {what}")


class WatchedSessions(Sessions):
    """Nothing new is begun on a worker that is no member, or is known to want no more."""

    door: "Door"

    def post(self, worker: Endpoint, message: Message) -> None:
        if isinstance(message, Submit | Adopt):
            self.door.check(worker, self)
        super().post(worker, message)


class Door(Process):
    """One life of a front door; the listener of its sessions."""

    def __init__(self, world: object, slot: int, life: int) -> None:
        super().__init__(f"door-{slot}:{life}", world.network)
        self.world, self.slot, self.address = world, slot, self.name
        self.clients: list[Client] = []
        """Those who have come to it."""
        self.version = -1
        self.members: set[Incarnation] = set()
        config, timeline = world.config, world.timeline
        self.sessions = WatchedSessions(
            config.name, FrontDoorId(self.name), config.link, clock=timeline, listener=self
        )
        self.sessions.door = self
        self.reception = Reception(config, self.sessions, timeline, self.loop, world.chaos.dice)
        self._feed = MembershipFeed(self._poll, self.update, self._report)
        self.loop.call_soon(self._begin)

    def update(self, membership: Membership) -> None:
        """What is not newer is ignored, as by `FrontDoor`."""
        if membership.version <= self.version:
            return
        self.version = membership.version
        self.members = {endpoint.incarnation for endpoint in membership.workers}
        names = [f"{e.worker}:{e.incarnation}" for e in membership.workers]
        self.network.story.tell(self, f"learns of {names} in version {self.version}")
        if len({endpoint.worker for endpoint in membership.workers}) < len(names):
            self.world.blame(f"{self} is told of two lives of one seat: {names}")
        self.sessions.update(membership)
        self.reception.members(membership)
        self.close_idle()

    def close_idle(self) -> None:
        self.sessions.close_idle(lambda worker: self.reception.ledger.outstanding(worker) == 0)

    def check(self, worker: Endpoint, sessions: Sessions) -> None:
        """Whether something may be begun there."""
        draining = any(each.draining for each in sessions if each.endpoint == worker)
        if worker.incarnation not in self.members or draining:
            where = f"{worker.worker}:{worker.incarnation}"
            self.world.blame(f"{self} begins something at {where}, which is to be left alone")

    def _begin(self) -> None:
        self.loop.create_task(self._feed.run())

    async def _poll(
        self, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> Membership | None:
        return await self.world.poll(self, after_version, wait_s, report)

    def _report(self) -> FrontDoorReport:
        """What of it is read by the controller."""
        outstanding = self.reception.ledger.outstanding
        lives = [session.endpoint for session in self.sessions]
        return FrontDoorReport(
            front_door=FrontDoorId(self.name),
            grpc="",
            busy=tuple(each.incarnation for each in lives if outstanding(each)),
            membership_version=self.version,
        )

    def heard(self, word: WorkerWord) -> None:
        self.reception.heard(word)

    def reported(self, worker: Endpoint) -> None:
        self.reception.reported(worker)

    def learned(self, worker: Endpoint, names: bytes) -> None:
        self.reception.learned(worker, names)

    def wanted(self, worker: Endpoint, wish: MoveWanted) -> None:
        self.reception.wanted(worker, wish)

    def connected(self, worker: Endpoint) -> None:
        self.reception.connected(worker)

    def lost(self, worker: Endpoint, reason: str) -> None:
        self.reception.lost(worker, reason)
