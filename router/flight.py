"""One request's life as a state machine: events go in, commands come out, and every token reaches the client once.

    CHOOSING ──► ALONE ─────────────────────────────────────────► ENDED
        │  ▲       │ ▲  one worker does everything                   ▲
        │  │       ▼ │                                               │
        │  │     LEAVING ◄─────────────┐  it runs on while another   │
        │  │         └──────────────┐  │  one pulls, until that      │
        │  └── replay, from any     ▼  │  has taken over             │
        └──► PREFILLING ──► BINDING ⇄ MOVING ──► DECODING ───────────┘
              queued at P    P runs,    D pulls     D owns it
                             no D yet   from P

Every attempt of a worker to own the request has an epoch of its own, later ones higher ones. What comes from a worker that
is no leg any more is not listened to: so this is the one place where it is decided who owns the request, and workers that do
not know ask here.

A flight knows no sockets, no clock and no policy: it asks for workers and is told which. Its truth is the token log; its
legs name those workers only that may still hold something of the request and therefore must be told when it ends.
"""

from tercet.errors import DeadlineExceeded, InvalidRequest, RequestFailed, TercetError
from tercet.ids import FIRST_EPOCH, Epoch
from tercet.request import FinishReason, RequestSpec, TokenLog
from tercet.router.events import (
    Bill,
    Bound,
    Busy,
    ChooseDestination,
    ChooseWorker,
    Chosen,
    ClientLeft,
    Command,
    DeadlinePassed,
    Deliver,
    Event,
    Fail,
    Finish,
    Joined,
    Moved,
    NoneUsable,
    Prefilled,
    Relocated,
    Send,
    TurnedAway,
    Unseated,
    Wait,
    Waited,
    WorkerLost,
)
from tercet.router.legs import Leg, Legs
from tercet.router.patience import Patience
from tercet.router.phase import (
    HAS_DESTINATION,
    MAY_HAVE_SOURCE,
    MOVABLE,
    MOVES,
    NEEDS_SOURCE,
    Phase,
)
from tercet.wire import (
    Adopt,
    Endpoint,
    Failed,
    HandedOff,
    Refused,
    Resume,
    Stalled,
    Started,
    Submit,
    Tokens,
)


class Flight:
    """The state machine of one request. `start` once, then `handle` events until the phase is `ENDED`.

    At most `replays_max` losses are answered by a replay, and at most `wait_s_max` seconds are spent in waits for a
    destination; then the request fails. How long it waits for its first worker is the door's business.
    """

    def __init__(self, spec: RequestSpec, *, replays_max: int, wait_s_max: float) -> None:
        self.spec = spec
        self.log = TokenLog()
        self.phase = Phase.CHOOSING
        self.legs = Legs(spec.id)
        self.epoch = FIRST_EPOCH
        """The source's, or that of whoever is alone."""
        self.replays = 0
        self.refusals = 0
        self._replays_max = replays_max
        self._patience = Patience(wait_s_max)
        self._waiting = False
        self._left: Endpoint | None = None
        """The worker that gave it away last, or tried to."""
        self._given: list[int] = []
        """The log as it was when this attempt began."""

    def start(self) -> list[Command]:
        """The first commands of the request's life."""
        return self._choose()

    def handle(self, event: Event) -> list[Command]:
        """What follows from `event`. An ended flight, and the words of former owners, are answered by nothing."""
        if self.phase is Phase.ENDED:
            return []
        match event:
            case Tokens():
                return self._tokens(event)
            case Chosen():
                return self._chosen(event)
            case Bound():
                return self._bound(event.worker)
            case Started():
                return self._started(event)
            case Relocated(worker):
                return self._relocated(worker)
            case Unseated():
                return self._unseated()
            case HandedOff():
                return self._handed_off(event)
            case Stalled():
                return self._stalled(event)
            case Refused():
                return self._refused(event)
            case Failed():
                return self._failed(event)
            case WorkerLost():
                return self._lost(event)
            case TurnedAway(error):
                return self._fail(error)
            case NoneUsable():
                return self._none_usable(event)
            case Waited():
                return self._ask_again(waiting=False)
            case Joined():
                return self._ask_again(waiting=True)
            case ClientLeft():
                return self._end()
            case DeadlinePassed():
                return self._fail(DeadlineExceeded("the request's deadline passed"))

    def validate(self) -> None:
        """Assert what must hold between any two events."""
        assert self.legs.source is not None or self.phase not in NEEDS_SOURCE, self
        assert self.legs.source is None or self.phase in MAY_HAVE_SOURCE, self
        assert (self.legs.destination is not None) is (self.phase in HAS_DESTINATION), self
        assert self.log.fence <= self.legs.last_epoch, self
        assert self.epoch <= self.legs.last_epoch, self
        assert self.replays <= self._replays_max, self

    def __repr__(self) -> str:
        return (
            f"Flight({self.spec.id}, {self.phase}, epoch={self.epoch}, fence={self.log.fence}, "
            f"tokens={len(self.log.tokens)}, {self.legs})"
        )

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def _choose(self) -> list[Command]:
        """Ask for a worker, unless the log is complete and only the word of its end was lost."""
        reason = self._log_end()
        if reason is not None:
            return [*self._end(), Finish(reason)]
        return [ChooseWorker(frozenset(self._patience.avoid))]

    def _log_end(self) -> FinishReason | None:
        """Why the log cannot go on, as far as this side can see. End-of-sequence tokens are known to workers only: one
        that is given a log ending so answers with an empty, final `Tokens`."""
        tokens, sampling = self.log.tokens, self.spec.sampling
        if tokens and tokens[-1] in sampling.stop_token_ids and len(tokens) > sampling.min_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(tokens) >= sampling.max_tokens else None

    def _chosen(self, event: Chosen) -> list[Command]:
        assert self.phase is Phase.CHOOSING, self
        self._move_to(Phase.PREFILLING if event.hand_off else Phase.ALONE)
        self.legs.source = Leg(event.worker, self.epoch)
        self._given = list(self.log.tokens)
        return [Send(event.worker, Submit(self.spec, self.epoch, self._given, event.hand_off))]

    def _started(self, event: Started) -> list[Command]:
        if self.phase is not Phase.PREFILLING or event.epoch != self.epoch:
            return []
        self._move_to(Phase.BINDING)
        return self._choose_destination()

    def _choose_destination(self) -> list[Command]:
        assert self.legs.source is not None, self
        return [ChooseDestination(self.legs.source.worker, frozenset(self._patience.avoid))]

    def _bound(self, worker: Endpoint) -> list[Command]:
        assert self.phase is Phase.BINDING, self
        assert self.legs.source is not None, self
        self._waiting = False
        self._move_to(Phase.MOVING)
        self.legs.destination = Leg(worker, self.legs.next_epoch())
        return [self._adopt(self.legs.source, self.legs.destination, self._given)]

    def _adopt(self, source: Leg, destination: Leg, output: list[int]) -> Command:
        live = self.phase is Phase.LEAVING
        order = Adopt(
            self.spec, destination.epoch, source.worker, source.epoch, list(output), live=live
        )
        return Send(destination.worker, order)

    def _none_usable(self, event: NoneUsable) -> list[Command]:
        """Wait and ask again, also those that said no. Whoever was asked early goes on waiting."""
        if self._waiting:
            return []
        delay_s = self._patience.wait_s()
        if delay_s is None:
            return self._fail(self._patience.complaint(event.reason))
        self._waiting = True
        return [Wait(delay_s)]

    def _ask_again(self, *, waiting: bool) -> list[Command]:
        """Only if it was waited for; `waiting` says that the delay is not over."""
        if not self._waiting:
            return []
        self._waiting = waiting
        return self._choose_destination()

    # ---- what workers say --------------------------------------------------------------------------------------------

    def _tokens(self, event: Tokens) -> list[Command]:
        leg = self._speaker(event.epoch)
        if leg is None:
            return []
        if event.index > len(self.log.tokens):
            return self._breach(leg, f"left a gap before token {event.index}")
        commands: list[Command] = []
        if leg is self.legs.destination:
            commands += self._overtake()
        if not leg.spoke:
            leg.spoke = True
            commands.append(Prefilled(leg.worker))
        fresh = self.log.append(event.epoch, event.index, event.tokens)
        if fresh:
            self._patience.progress()
            logprobs = event.logprobs[-len(fresh) :] if event.logprobs is not None else None
            commands.append(Deliver(fresh, logprobs))
        if event.finish is not None:
            commands += self._finish(leg, event, event.finish)
        return commands

    def _overtake(self) -> list[Command]:
        """The destination speaks, so it owns the request. A source that has said nothing may still be computing what the
        destination has computed itself, and is told to stop; else its `HandedOff` is on the way."""
        if self.phase is Phase.DECODING:
            return []
        moved = self._taken_over()
        source = self.legs.source
        return [*moved, *(self.legs.forget(source) if source and not source.spoke else [])]

    def _taken_over(self) -> list[Command]:
        """Whoever pulled owns the request, or is the only one who can."""
        was_live = self.phase is Phase.LEAVING
        self._move_to(Phase.DECODING)
        return [Moved(self._left)] if was_live and self._left is not None else []

    def _finish(self, leg: Leg, event: Tokens, reason: FinishReason) -> list[Command]:
        """The owner is done and keeps nothing; the other leg, if there is one, is told to forget."""
        bill: list[Command] = [Bill(event.usage, leg is self.legs.source)] if event.usage else []
        return [*bill, *self.legs.close(leg), *self._end(), Finish(reason, leg.worker)]

    def _handed_off(self, event: HandedOff) -> list[Command]:
        leg = self.legs.source
        if event.epoch != self.epoch:
            return []
        if leg is not None and self.legs.destination is None:
            return self._gone(leg, f"{leg.name} handed off to somebody who was given up")
        moved = self._taken_over() if self.phase in (Phase.MOVING, Phase.LEAVING) else []
        closed = self.legs.close(leg) if leg is not None else []
        return [Bill(event.usage, of_source=True), *moved, *closed]

    def _refused(self, event: Refused) -> list[Command]:
        """Nothing was kept: ask the next one. Only where the other owner is gone already does it cost a replay."""
        leg = self._speaker(event.epoch)
        if leg is None:
            return []
        self.refusals += 1
        if self._is_taking_over(leg):
            return [*self.legs.close(leg), *self._stay(f"{leg.name} declined: {event.reason}")]
        if self.phase is Phase.MOVING and leg is self.legs.destination:
            self._patience.refused_by(leg.worker.worker)
            self._move_to(Phase.BINDING)
            return [*self.legs.close(leg), *self._choose_destination()]
        busy = Busy(leg.worker, event.retry_after_s)
        if self.phase in (Phase.ALONE, Phase.PREFILLING) and not leg.spoke:
            self._move_to(Phase.CHOOSING)
            return [*self.legs.close(leg), busy, *self._choose()]
        return [busy, *self._gone(leg, f"{leg.name} refused: {event.reason}")]

    def _failed(self, event: Failed) -> list[Command]:
        leg = self.legs.of(event.epoch)
        if leg is None:
            return []
        if event.epoch < self.log.fence:
            return self.legs.close(leg)
        cause = f"{leg.name} gave up: {event.reason}"
        if self._is_taking_over(leg):
            return [*self.legs.close(leg), *self._stay(cause)]
        if event.retryable:
            self._patience.avoid.add(leg.worker.worker)
            return self._gone(leg, cause)
        begun = bool(self.log.tokens)
        error = RequestFailed(cause) if begun else InvalidRequest("", event.reason)
        return [*self.legs.close(leg), *self._fail(error)]

    def _lost(self, event: WorkerLost) -> list[Command]:
        leg = self.legs.at(event.worker)
        return [] if leg is None else self._gone(leg, f"{leg.name} was lost: {event.reason}")

    # ---- moving ------------------------------------------------------------------------------------------------------

    @property
    def owner(self) -> Endpoint | None:
        """Who could be told to give the request away; None while nobody could."""
        if self.phase not in MOVABLE:
            return None
        leg = self.legs.destination or self.legs.source
        return leg.worker if leg is not None else None

    def _relocated(self, worker: Endpoint) -> list[Command]:
        """What the owner has is copied while it runs on; of two legs the source's is only waiting for its last word."""
        assert self.phase in MOVABLE, self
        lingering = self.legs.turn()
        source = self.legs.source
        assert source is not None, self
        self._move_to(Phase.LEAVING)
        self.epoch, self._left = source.epoch, source.worker
        self.legs.destination = Leg(worker, self.legs.next_epoch())
        return [*lingering, self._adopt(source, self.legs.destination, self.log.tokens)]

    def _is_taking_over(self, leg: Leg) -> bool:
        return self.phase is Phase.LEAVING and leg is self.legs.destination

    def _stay(self, reason: str) -> list[Command]:
        """The destination is out, so what it may still say is not listened to. The source may be frozen, and is told to go
        on; should it have given the request away meanwhile, it will say so."""
        source = self.legs.source
        assert source is not None, self
        self._move_to(Phase.ALONE)
        return [
            Moved(source.worker, reason),
            Send(source.worker, Resume(self.spec.id, source.epoch)),
        ]

    def _stalled(self, event: Stalled) -> list[Command]:
        """The source does not know how the move has ended."""
        if self.phase is Phase.DECODING and event.epoch == self.epoch:
            return self.legs.forget(self.legs.source)
        if self.phase is Phase.LEAVING and event.epoch == self.epoch:
            return [*self.legs.forget(self.legs.destination), *self._stay(event.reason)]
        return []

    def _unseated(self) -> list[Command]:
        """Nothing has been computed: somebody else may begin as well."""
        if self.phase is not Phase.PREFILLING:
            return []
        forgotten = self.legs.forget_all()
        self.epoch = self.legs.next_epoch()
        self._move_to(Phase.CHOOSING)
        return [*forgotten, *self._choose()]

    # ---- losing and ending -------------------------------------------------------------------------------------------

    def _gone(self, leg: Leg, cause: str) -> list[Command]:
        """A leg has nothing any more. A bound destination recomputes by itself what it can no longer pull, so only the
        loss of the last one to wait for costs a replay."""
        taking_over = self._is_taking_over(leg)
        closed = self.legs.close(leg)
        if taking_over:
            return [*closed, *self._stay(cause)]
        if self.legs.destination is None:
            return [*closed, *self._replay(cause)]
        moved = self._taken_over() if self.phase in (Phase.MOVING, Phase.LEAVING) else []
        return [*closed, *moved]

    def _replay(self, cause: str) -> list[Command]:
        """Cancel what is left and begin again from the log, under an epoch no former owner can reach."""
        if self.replays == self._replays_max:
            return self._fail(self._last_word(cause))
        forgotten = self.legs.forget_all()
        self.replays += 1
        self.epoch = self.legs.next_epoch()
        self.log.raise_fence(self.epoch)
        self._waiting = False
        self._move_to(Phase.CHOOSING)
        return [*forgotten, *self._choose()]

    def _last_word(self, cause: str) -> TercetError:
        """A source that gave up while all destinations were full was not at fault, and the client may come again."""
        if self.phase is Phase.BINDING and self._waiting:
            return self._patience.complaint("no decode worker could take it")
        return RequestFailed(f"given up after {self.replays} replays; {cause}")

    def _breach(self, leg: Leg, what: str) -> list[Command]:
        """The worker broke the protocol: what it says about this request is worth nothing."""
        self._patience.avoid.add(leg.worker.worker)
        return self._replay(f"{leg.name} {what}")

    def _fail(self, error: TercetError) -> list[Command]:
        return [*self._end(), Fail(error)]

    def _end(self) -> list[Command]:
        self._move_to(Phase.ENDED)
        return self.legs.forget_all()

    def _speaker(self, epoch: Epoch) -> Leg | None:
        """The leg that may speak under this epoch; None for a former owner's."""
        return self.legs.of(epoch) if epoch >= self.log.fence else None

    def _move_to(self, phase: Phase) -> None:
        assert phase in MOVES[self.phase], f"{self.phase} -> {phase}: {self!r}"
        self.phase = phase
