"""A simulated front door: the production sessions and reception; and its clients, who know what they ought to be told."""

from dataclasses import dataclass

from faults import kv
from faults.process import Process
from tercet.errors import DeadlineExceeded, TercetError
from tercet.ids import FrontDoorId
from tercet.request import FinishReason, RequestSpec, TokenLogprobs
from tercet.router.events import WorkerWord
from tercet.router.reception import Reception
from tercet.router.record import Tally
from tercet.router.sessions import Sessions
from tercet.wire import Endpoint, Membership


@dataclass(frozen=True, slots=True)
class Order:
    """What a client will ask for, and how long it has patience."""

    spec: RequestSpec
    at_s: float
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


class Door(Process):
    """One life of a front door; the listener of its sessions."""

    def __init__(self, world: object, life: int) -> None:
        super().__init__(f"door:{life}", world.network)
        self.world, self.address = world, f"door:{life}"
        self.clients: list[Client] = []
        """Those who have come to it."""
        self._version = -1
        config, timeline = world.config, world.timeline
        self.sessions = Sessions(
            config.name, FrontDoorId(self.name), config.link, clock=timeline, listener=self
        )
        self.reception = Reception(config, self.sessions, timeline, self.loop, world.chaos.dice)

    def update(self, membership: Membership) -> None:
        """Called on its own loop; what is not newer is ignored, as by `FrontDoor`."""
        if membership.version <= self._version:
            return
        self._version = membership.version
        self.network.story.tell(
            self, f"learns of {[f'{e.worker}:{e.incarnation}' for e in membership.workers]}"
        )
        self.sessions.update(membership)
        self.reception.members(membership)
        self.sessions.close_idle(lambda worker: self.reception.ledger.outstanding(worker) == 0)

    def heard(self, word: WorkerWord) -> None:
        self.reception.heard(word)

    def reported(self, worker: Endpoint) -> None:
        self.reception.reported(worker)

    def learned(self, worker: Endpoint, names: bytes) -> None:
        self.reception.learned(worker, names)

    def connected(self, worker: Endpoint) -> None:
        self.reception.connected(worker)

    def lost(self, worker: Endpoint, reason: str) -> None:
        self.reception.lost(worker, reason)
