"""What is known about each request, while it runs and when it is over."""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from tercet.errors import (
    DeadlineExceeded,
    NoWorkers,
    Overloaded,
    RequestError,
    TercetError,
)
from tercet.ids import RequestId, WorkerId
from tercet.request import FinishReason
from tercet.role import Role
from tercet.router.moves import MoveNote, Moves
from tercet.router.note import ChoiceNote, note_of
from tercet.router.policy import Ask, Choice
from tercet.router.routes import Route
from tercet.wire import Usage


class Outcome(StrEnum):
    """How a request ended, as metrics count it."""

    RUNNING = "running"
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    """Its client left, or had found a stop string."""
    OVERLOADED = "overloaded"
    NO_WORKERS = "no_workers"
    INVALID = "invalid"
    DEADLINE = "deadline"
    FAILED = "failed"


def outcome_of(error: TercetError) -> Outcome:
    """The outcome of a request that ended with this error."""
    match error:
        case Overloaded():
            return Outcome.OVERLOADED
        case NoWorkers():
            return Outcome.NO_WORKERS
        case RequestError():
            return Outcome.INVALID
        case DeadlineExceeded():
            return Outcome.DEADLINE
        case _:
            return Outcome.FAILED


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request: where it ran, what it cost, how fast it was. Times are milliseconds on the front door's clock."""

    request: RequestId
    session: str = ""
    tenant: str = ""
    priority: int = 0
    prefill_worker: WorkerId | None = None
    """The last worker that prefilled for another; None when the decode worker did everything."""
    decode_worker: WorkerId | None = None
    local: bool = False
    """Prefilled and decoded by one worker."""
    reason: str = ""
    """Why it was split or not, see `split.SplitReason`."""
    choices: tuple[ChoiceNote, ...] = ()
    """Why these workers: who began the last attempt, then who adopted it."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens that the worker which prefilled found in its cache."""
    predicted_cached_tokens: int = 0
    output_tokens: int = 0
    pulled_tokens: int = 0
    pulled_bytes: int = 0
    pulled_codec: str = "none"
    """How what was pulled was packed, if any of it was: its output may differ from that of one worker."""
    pull_ms: float = 0.0
    pull_exposed_ms: float = 0.0
    """What the hand-off added before the second token."""
    recomputed: bool = False
    """A pull failed; the decode worker computed what was missing."""
    preemptions: int = 0
    queue_ms: float = 0.0
    """From the call to the first dispatch to a worker."""
    ttft_ms: float | None = None
    """From the call to the first token; None when there was none."""
    dispatch_ttft_ms: float | None = None
    """From the dispatch that led to the first token; what came before it was waiting."""
    predicted_ttft_ms: float | None = None
    """What the routing expected of that time at that dispatch, where the worker had a fitted model."""
    itl_ms: float | None = None
    """Mean time between tokens; None with fewer than two."""
    itl_ms_max: float | None = None
    """Longest pause between two arrivals."""
    total_ms: float = 0.0
    replays: int = 0
    moves: tuple[MoveNote, ...] = ()
    """Live moves, the last ones if there were many."""
    refusals: int = 0
    waits: int = 0
    """Times that no worker could be asked, and it waited."""
    outcome: Outcome = Outcome.RUNNING
    finish: FinishReason | None = None
    """None while it runs, and when it failed."""
    error: str = ""

    @property
    def began_in(self) -> Role:
        """The pool whose worker computed the prompt."""
        return Role.DECODE if self.prefill_worker is None else Role.PREFILL

    @property
    def ttft_error_ms(self) -> float | None:
        """How much later than predicted the first token came; None without a prediction or a token."""
        if self.dispatch_ttft_ms is None or self.predicted_ttft_ms is None:
            return None
        return self.dispatch_ttft_ms - self.predicted_ttft_ms


@dataclass(slots=True)
class Tally:
    """What a record is made of, while the request runs. Times are seconds of the front door's clock."""

    request: RequestId
    prompt_tokens: int
    started_s: float
    session: str = ""
    priority: int = 0
    tenant: str = ""
    prefill_worker: WorkerId | None = None
    decode_worker: WorkerId | None = None
    reason: str = ""
    choices: tuple[ChoiceNote, ...] = ()
    predicted_cached_tokens: int = 0
    predicted_ttft_s: float | None = None
    dispatched_s: float | None = None
    """The first time; `began_s` is the last one before the first token."""
    began_s: float | None = None
    waits: int = 0
    first_s: float | None = None
    last_s: float | None = None
    longest_pause_s: float = 0.0
    ended_s: float | None = None
    output_tokens: int = 0
    source_usage: Usage | None = None
    usage: Usage = field(default_factory=Usage)
    outcome: Outcome = Outcome.RUNNING
    finish: FinishReason | None = None
    error: str = ""
    explained: bool = True
    """Whether the record says why these workers; in a simulation nobody asks."""
    moves: Moves = field(init=False)

    def __post_init__(self) -> None:
        self.moves = Moves(self.started_s)

    def begun(self, route: Route, now_s: float) -> None:
        """A worker was chosen to begin with it, for the first time or again."""
        worker = route.view.worker
        self.reason = route.reason
        if self.explained:
            ask = Ask(self.request, self.prompt_tokens + self.output_tokens)
            self.choices = (note_of(route.choice, ask),)
        self.prefill_worker = worker if route.hand_off else None
        self.decode_worker = None if route.hand_off else worker
        if self.dispatched_s is None:
            self.dispatched_s = now_s
        if self.first_s is None:
            self.began_s = now_s
            self.predicted_cached_tokens = route.view.hit_tokens
            self.predicted_ttft_s = route.predicted_ttft_s

    def bound(self, choice: Choice) -> None:
        """A worker was chosen to adopt it; the last one counts."""
        self.decode_worker = choice.view.worker
        if self.explained:
            self.choices = (*self.choices[:1], note_of(choice))

    def relocated(self, source: WorkerId, choice: Choice, now_s: float) -> None:
        """A worker was chosen to take it over while it runs."""
        self.moves.begin(source, choice.view.worker, now_s)

    def moved(self, reason: str, now_s: float) -> None:
        """That has ended; with a `reason` it stays where it was."""
        self.moves.end(reason, now_s)
        if not reason:
            self.decode_worker = self.moves.notes[-1].destination

    def billed(self, usage: Usage, of_source: bool) -> None:
        """What it cost on one of its workers."""
        if of_source:
            self.source_usage = usage
        else:
            self.usage = usage

    def finished(self, reason: FinishReason, now_s: float) -> None:
        self.finish, self.outcome, self.ended_s = reason, Outcome(reason.value), now_s

    def failed(self, error: TercetError, now_s: float) -> None:
        self.error, self.outcome, self.ended_s = str(error), outcome_of(error), now_s

    def arrived(self, tokens: int, now_s: float) -> None:
        """So many new tokens came at once."""
        if self.last_s is None:
            self.first_s = now_s
        else:
            self.longest_pause_s = max(self.longest_pause_s, now_s - self.last_s)
            self.moves.arrived(now_s - self.last_s)
        self.last_s = now_s
        self.output_tokens += tokens

    def record(self, now_s: float, replays: int, refusals: int) -> RequestRecord:
        """The facts so far."""
        usage, source_usage = self.usage, self.source_usage
        prefilled = source_usage or usage
        return RequestRecord(
            request=self.request,
            session=self.session,
            tenant=self.tenant,
            priority=self.priority,
            prefill_worker=self.prefill_worker,
            decode_worker=self.decode_worker,
            local=self.prefill_worker is None and self.decode_worker is not None,
            reason=self.reason,
            choices=self.choices,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=prefilled.cached_tokens,
            predicted_cached_tokens=self.predicted_cached_tokens,
            output_tokens=self.output_tokens,
            pulled_tokens=usage.pulled_tokens,
            pulled_bytes=usage.pulled_bytes,
            pulled_codec=usage.pulled_codec,
            pull_ms=usage.pull_s * 1e3,
            pull_exposed_ms=usage.pull_exposed_s * 1e3,
            recomputed=usage.recomputed,
            preemptions=usage.preemptions + (source_usage.preemptions if source_usage else 0),
            queue_ms=_ms(self.dispatched_s, self.started_s) or 0.0,
            ttft_ms=_ms(self.first_s, self.started_s),
            dispatch_ttft_ms=_ms(self.first_s, self.began_s),
            predicted_ttft_ms=_ms(self.predicted_ttft_s, 0.0),
            itl_ms=self._itl_ms(),
            itl_ms_max=self.longest_pause_s * 1e3 if self.output_tokens > 1 else None,
            total_ms=((self.ended_s or now_s) - self.started_s) * 1e3,
            replays=replays,
            moves=tuple(self.moves.notes),
            refusals=refusals,
            waits=self.waits,
            outcome=self.outcome,
            finish=self.finish,
            error=self.error,
        )

    def _itl_ms(self) -> float | None:
        """Mean time between tokens."""
        if self.first_s is None or self.last_s is None or self.output_tokens < 2:
            return None
        return (self.last_s - self.first_s) * 1e3 / (self.output_tokens - 1)


def _ms(until_s: float | None, since_s: float | None) -> float | None:
    return None if until_s is None or since_s is None else (until_s - since_s) * 1e3
