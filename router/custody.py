"""Who has a request: which workers may own it, under which epochs, and what each of them must be told.

At most two legs: the source, or a worker that is alone, and the destination, under a later epoch. Every attempt of a worker to own the
request has an epoch of its own. What comes from a worker that is no leg any more is not listened to: so this is the one
place where it is decided who owns the request, and workers that do not know ask here. Knows no tokens and no policy.
"""

from dataclasses import dataclass

from tercet.ids import FIRST_EPOCH, Epoch
from tercet.request import RequestSpec
from tercet.router.events import Closed, Command, Moved, Send
from tercet.router.phase import (
    HAS_DESTINATION,
    MAY_HAVE_SOURCE,
    MOVABLE,
    MOVES,
    NEEDS_SOURCE,
    PULLED,
    Phase,
)
from tercet.wire import Adopt, Cancel, Endpoint, Resume, Submit


@dataclass(slots=True)
class Leg:
    """One worker's part in a request."""

    worker: Endpoint
    epoch: Epoch
    spoke: bool = False
    """It has sent tokens: its prompt KV is complete."""

    @property
    def name(self) -> str:
        return self.worker.worker

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether this leg runs in that life of that worker."""
        mine = self.worker
        return (mine.worker, mine.incarnation) == (endpoint.worker, endpoint.incarnation)


class Custody:
    """Each method is one step from phase to phase and returns what follows from it."""

    def __init__(self, spec: RequestSpec) -> None:
        self.phase = Phase.CHOOSING
        self.source: Leg | None = None
        self.destination: Leg | None = None
        self.epoch = FIRST_EPOCH
        """The source's, or that of whoever is alone, even when it is gone."""
        self._spec = spec
        self._last_epoch = FIRST_EPOCH
        self._left: Endpoint | None = None
        """The worker that gave it away last, or tried to."""

    def __repr__(self) -> str:
        return f"Custody({self.phase}, epoch={self.epoch}, {self.source}, {self.destination})"

    def validate(self) -> None:
        """Assert what must hold between any two events."""
        assert self.source is not None or self.phase not in NEEDS_SOURCE, self
        assert self.source is None or self.phase in MAY_HAVE_SOURCE, self
        assert (self.destination is not None) is (self.phase in HAS_DESTINATION), self
        epochs = [leg.epoch for leg in (self.source, self.destination) if leg is not None]
        assert epochs == sorted(set(epochs)), self
        assert all(epoch <= self._last_epoch for epoch in [*epochs, self.epoch]), self

    # ---- who ---------------------------------------------------------------------------------------------------------

    @property
    def owner(self) -> Endpoint | None:
        """Who could be told to give the request away; None while nobody could."""
        leg = self.destination or self.source
        return leg.worker if leg is not None and self.phase in MOVABLE else None

    def is_owned_by(self, worker: Endpoint, epoch: Epoch) -> bool:
        """Whether that life of that worker could be told to give the request away, as which it has it under `epoch`."""
        leg = self.of(epoch)
        return leg is not None and leg.is_at(worker) and self.owner == leg.worker

    @property
    def leaving(self) -> Endpoint | None:
        """Who is giving it away while it runs; None while nobody is."""
        source = self.source
        return source.worker if source is not None and self.phase is Phase.LEAVING else None

    @property
    def queued_at(self) -> Endpoint | None:
        """In whose queue it waits, as far as is known."""
        source = self.source
        return source.worker if source is not None and self.phase is Phase.PREFILLING else None

    def of(self, epoch: Epoch) -> Leg | None:
        """Who owns, or owned, the request under this epoch and is not closed."""
        for leg in (self.source, self.destination):
            if leg is not None and leg.epoch == epoch:
                return leg
        return None

    def at(self, endpoint: Endpoint) -> Leg | None:
        """The leg in that life of that worker."""
        for leg in (self.source, self.destination):
            if leg is not None and leg.is_at(endpoint):
                return leg
        return None

    def is_taking_over(self, leg: Leg) -> bool:
        """Whether it pulls what another worker still runs."""
        return self.phase is Phase.LEAVING and leg is self.destination

    # ---- forward -----------------------------------------------------------------------------------------------------

    def begin(self, worker: Endpoint, output: list[int], *, hand_off: bool) -> list[Command]:
        """That worker computes the prompt, and with `hand_off` nothing else."""
        self.move_to(Phase.PREFILLING if hand_off else Phase.ALONE)
        self.source = Leg(worker, self.epoch)
        return [Send(worker, Submit(self._spec, self.epoch, output, hand_off))]

    def started(self, epoch: Epoch) -> bool:
        """The source computes; whether that was news."""
        if self.phase is not Phase.PREFILLING or epoch != self.epoch:
            return False
        self.move_to(Phase.BINDING)
        return True

    def bind(self, worker: Endpoint, output: list[int]) -> list[Command]:
        """That worker pulls what the source computes."""
        self.move_to(Phase.MOVING)
        return [self._adopt(worker, output)]

    def relocate(self, worker: Endpoint, output: list[int]) -> list[Command]:
        """That worker pulls what the owner has, which runs on; of two legs the source's waits only for its last word."""
        assert self.owner is not None, self
        lingering: list[Command] = []
        if self.destination is not None:
            lingering = self.forget(self.source)
            self.source, self.destination = self.destination, None
        assert self.source is not None, self
        self.epoch, self._left = self.source.epoch, self.source.worker
        self.move_to(Phase.LEAVING)
        return [*lingering, self._adopt(worker, output)]

    def overtake(self) -> list[Command]:
        """The destination speaks, so it owns the request. A source that has said nothing may still be computing what the
        destination has computed itself, and is told to stop; else its `HandedOff` is on the way."""
        if self.phase is Phase.DECODING:
            return []
        taken_over, source = self.taken_over(), self.source
        return [*taken_over, *(self.forget(source) if source and not source.spoke else [])]

    def taken_over(self) -> list[Command]:
        """Whoever pulls owns the request, or is the only one who can."""
        if self.phase not in PULLED:
            return []
        was_live = self.phase is Phase.LEAVING
        self.move_to(Phase.DECODING)
        return [Moved(self._left)] if was_live and self._left is not None else []

    # ---- back --------------------------------------------------------------------------------------------------------

    def stay(self, reason: str) -> list[Command]:
        """Whoever pulled is out, so what it may still say is not listened to. The source may be frozen, and is told to go
        on; should it have given the request away meanwhile, it will say so."""
        source = self.source
        assert source is not None, self
        self.move_to(Phase.ALONE)
        resume = Send(source.worker, Resume(self._spec.id, source.epoch, self._last_epoch))
        return [*self.forget(self.destination), Moved(source.worker, reason), resume]

    def stalled(self, epoch: Epoch, reason: str) -> list[Command]:
        """The source does not know how a live move has ended: either it goes on, or it forgets."""
        if epoch != self.epoch:
            return []
        if self.phase is Phase.LEAVING:
            return self.stay(reason)
        return self.forget(self.source) if self.phase is Phase.DECODING else []

    def restart(self) -> list[Command]:
        """Nobody has it, and nobody who had it is listened to any more."""
        forgotten = self.forget_all()
        self.epoch = self._next_epoch()
        self.move_to(Phase.CHOOSING)
        return forgotten

    def end(self) -> list[Command]:
        """Nobody has it, for good."""
        self.move_to(Phase.ENDED)
        return self.forget_all()

    def close(self, leg: Leg) -> list[Command]:
        """The worker has nothing any more, so there is nothing to cancel."""
        if leg is self.source:
            self.source = None
        else:
            assert leg is self.destination, f"not a leg of this request: {leg}"
            self.destination = None
        return [Closed(leg.worker)]

    def forget(self, leg: Leg | None) -> list[Command]:
        """Whatever the worker has, it is not wanted any more."""
        if leg is None:
            return []
        return [Send(leg.worker, Cancel(self._spec.id, leg.epoch)), *self.close(leg)]

    def forget_all(self) -> list[Command]:
        return [*self.forget(self.source), *self.forget(self.destination)]

    def move_to(self, phase: Phase) -> None:
        """An illegal way is a bug."""
        assert phase in MOVES[self.phase], f"{self.phase} -> {phase}: {self!r}"
        self.phase = phase

    def _adopt(self, worker: Endpoint, output: list[int]) -> Command:
        source, live = self.source, self.phase is Phase.LEAVING
        assert source is not None, self
        self.destination = Leg(worker, self._next_epoch())
        epoch = self.destination.epoch
        order = Adopt(self._spec, epoch, source.worker, source.epoch, list(output), live=live)
        return Send(worker, order)

    def _next_epoch(self) -> Epoch:
        """One that no leg has had."""
        self._last_epoch = Epoch(self._last_epoch + 1)
        return self._last_epoch
