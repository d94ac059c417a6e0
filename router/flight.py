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

A flight knows no sockets, no clock and no policy: it asks for workers and is told which. Its truth is the token log; who has
the request, and must be told when it ends, is in its custody.
"""

from tercet.errors import DeadlineExceeded, InvalidRequest, RequestFailed, TercetError
from tercet.ids import Epoch
from tercet.request import FinishReason, RequestSpec, TokenLog
from tercet.router.custody import Custody, Leg
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
    NoneUsable,
    Prefilled,
    Relocated,
    TurnedAway,
    Unseated,
    Wait,
    Waited,
    WorkerLost,
)
from tercet.router.patience import Patience
from tercet.router.phase import Phase
from tercet.wire import Failed, HandedOff, Refused, Stalled, Started, Tokens


class Flight:
    """The state machine of one request. `start` once, then `handle` events until the phase is `ENDED`.

    At most `replays_max` losses are answered by a replay, and at most `wait_s_max` seconds are spent in waits for a
    destination; then the request fails. How long it waits for its first worker is the door's business.
    """

    def __init__(self, spec: RequestSpec, *, replays_max: int, wait_s_max: float) -> None:
        self.spec = spec
        self.log = TokenLog()
        self.custody = Custody(spec)
        self.replays = 0
        self.refusals = 0
        self._replays_max = replays_max
        self._patience = Patience(wait_s_max)
        self._waiting = False
        self._given: list[int] = []
        """The log as it was when this attempt began."""

    @property
    def phase(self) -> Phase:
        return self.custody.phase

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
                self._waiting = False
                return self.custody.bind(event.worker, self._given)
            case Started():
                return self._started(event)
            case Relocated(worker):
                return self.custody.relocate(worker, self.log.tokens)
            case Unseated():
                return self._unseated()
            case HandedOff():
                return self._handed_off(event)
            case Stalled():
                return self.custody.stalled(event.epoch, event.reason)
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
                return self.custody.end()
            case DeadlinePassed():
                return self._fail(DeadlineExceeded("the request's deadline passed"))

    def validate(self) -> None:
        """Assert what must hold between any two events."""
        self.custody.validate()
        assert self.replays <= self._replays_max, self

    def __repr__(self) -> str:
        return (
            f"Flight({self.spec.id}, fence={self.log.fence}, tokens={len(self.log.tokens)}, "
            f"{self.custody})"
        )

    # ---- choosing ----------------------------------------------------------------------------------------------------

    def _choose(self) -> list[Command]:
        """Ask for a worker, unless the log is complete and only the word of its end was lost."""
        reason = self._log_end()
        if reason is not None:
            return [*self.custody.end(), Finish(reason)]
        return [ChooseWorker(frozenset(self._patience.avoid))]

    def _log_end(self) -> FinishReason | None:
        """Why the log cannot go on, as far as this side can see. End-of-sequence tokens are known to workers only: one
        that is given a log ending so answers with an empty, final `Tokens`."""
        tokens, sampling = self.log.tokens, self.spec.sampling
        if tokens and tokens[-1] in sampling.stop_token_ids and len(tokens) > sampling.min_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(tokens) >= sampling.max_tokens else None

    def _chosen(self, event: Chosen) -> list[Command]:
        self._given = list(self.log.tokens)
        return self.custody.begin(event.worker, self._given, hand_off=event.hand_off)

    def _started(self, event: Started) -> list[Command]:
        return self._choose_destination() if self.custody.started(event.epoch) else []

    def _choose_destination(self) -> list[Command]:
        source = self.custody.source
        assert source is not None, self
        return [ChooseDestination(source.worker, frozenset(self._patience.avoid))]

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
        if leg is self.custody.destination:
            commands += self.custody.overtake()
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

    def _finish(self, leg: Leg, event: Tokens, reason: FinishReason) -> list[Command]:
        """The owner is done and keeps nothing; the other leg, if there is one, is told to forget."""
        bill: list[Command] = [Bill(event.usage, leg is self.custody.source)] if event.usage else []
        return [*bill, *self.custody.close(leg), *self.custody.end(), Finish(reason, leg.worker)]

    def _handed_off(self, event: HandedOff) -> list[Command]:
        custody, leg = self.custody, self.custody.source
        if event.epoch != custody.epoch:
            return []
        if leg is not None and custody.destination is None:
            return self._gone(leg, f"{leg.name} handed off to somebody who was given up")
        taken_over = custody.taken_over()
        closed = custody.close(leg) if leg is not None else []
        return [Bill(event.usage, of_source=True), *taken_over, *closed]

    def _refused(self, event: Refused) -> list[Command]:
        """Nothing was kept: ask the next one. Only where the other owner is gone already does it cost a replay."""
        leg = self._speaker(event.epoch)
        if leg is None:
            return []
        self.refusals += 1
        if self.custody.is_taking_over(leg):
            return self._gone(leg, f"{leg.name} declined: {event.reason}")
        if self.phase is Phase.MOVING and leg is self.custody.destination:
            self._patience.refused_by(leg.worker.worker)
            self.custody.move_to(Phase.BINDING)
            return [*self.custody.close(leg), *self._choose_destination()]
        busy = Busy(leg.worker, event.retry_after_s)
        if self.phase in (Phase.ALONE, Phase.PREFILLING) and not leg.spoke:
            self.custody.move_to(Phase.CHOOSING)
            return [*self.custody.close(leg), busy, *self._choose()]
        return [busy, *self._gone(leg, f"{leg.name} refused: {event.reason}")]

    def _failed(self, event: Failed) -> list[Command]:
        leg = self.custody.of(event.epoch)
        if leg is None:
            return []
        if event.epoch < self.log.fence:
            return self.custody.close(leg)
        cause = f"{leg.name} gave up: {event.reason}"
        if self.custody.is_taking_over(leg):
            return self._gone(leg, cause)
        if event.retryable:
            self._patience.avoid.add(leg.worker.worker)
            return self._gone(leg, cause)
        begun = bool(self.log.tokens)
        error = RequestFailed(cause) if begun else InvalidRequest("", event.reason)
        return [*self.custody.close(leg), *self._fail(error)]

    def _lost(self, event: WorkerLost) -> list[Command]:
        leg = self.custody.at(event.worker)
        return [] if leg is None else self._gone(leg, f"{leg.name} was lost: {event.reason}")

    # ---- losing and ending -------------------------------------------------------------------------------------------

    def _unseated(self) -> list[Command]:
        """Nothing has been computed: somebody else may begin as well."""
        if self.phase is not Phase.PREFILLING:
            return []
        return [*self.custody.restart(), *self._choose()]

    def _gone(self, leg: Leg, cause: str) -> list[Command]:
        """A leg has nothing any more. A bound destination recomputes by itself what it can no longer pull, so only the
        loss of the last one to wait for costs a replay."""
        custody = self.custody
        was_taking_over = custody.is_taking_over(leg)
        closed = custody.close(leg)
        if was_taking_over:
            return [*closed, *custody.stay(cause)]
        if custody.destination is None:
            return [*closed, *self._replay(cause)]
        return [*closed, *custody.taken_over()]

    def _replay(self, cause: str) -> list[Command]:
        """Cancel what is left and begin again from the log, under an epoch no former owner can reach."""
        if self.replays == self._replays_max:
            return self._fail(self._last_word(cause))
        forgotten = self.custody.restart()
        self.replays += 1
        self.log.raise_fence(self.custody.epoch)
        self._waiting = False
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
        return [*self.custody.end(), Fail(error)]

    def _speaker(self, epoch: Epoch) -> Leg | None:
        """The leg that may speak under this epoch; None for a former owner's."""
        return self.custody.of(epoch) if epoch >= self.log.fence else None
