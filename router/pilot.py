"""Flies one request: gives its state machine the events and does what it orders. Decides nothing."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeVarTuple

from tercet.clock import Clock
from tercet.errors import MoveRefused, RequestFailed, TercetError, Unavailable
from tercet.ids import WorkerId
from tercet.request import FinishReason, TokenLogprobs
from tercet.router.custody import Custody
from tercet.router.dispatch import Dispatch
from tercet.router.door import Ticket
from tercet.router.events import (
    Bill,
    Bound,
    Busy,
    ChooseDestination,
    ChooseWorker,
    Chosen,
    ClientLeft,
    Closed,
    Command,
    DeadlinePassed,
    Deliver,
    Event,
    Fail,
    Finish,
    Moved,
    NoneUsable,
    Prefilled,
    Relocated,
    Send,
    TurnedAway,
    Wait,
    Waited,
)
from tercet.router.flight import Flight
from tercet.router.phase import Phase
from tercet.router.record import Outcome, RequestRecord, Tally
from tercet.router.routes import Route
from tercet.wire import Endpoint, Message

logger = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")


class Timer(Protocol):
    """Something that will happen, unless it is cancelled."""

    def cancel(self) -> None: ...


class Timers(Protocol):
    """An event loop's, or a simulation's."""

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], /, *args: *Ts
    ) -> Timer: ...


class Sink(Protocol):
    """Who wants the tokens."""

    @property
    def is_satisfied(self) -> bool:
        """It has found the end it looked for."""

    def begun(self) -> None:
        """A worker was sent the request; told once or more often."""

    def deliver(self, tokens: list[int], logprobs: list[TokenLogprobs] | None) -> None: ...
    def finish(self, reason: FinishReason) -> None: ...
    def fail(self, error: TercetError) -> None: ...
    def end(self) -> None:
        """Nothing will come any more; told last, perhaps more than once."""


class Desk(Protocol):
    """Where a pilot gets what its flight asks for; the reception is one."""

    @property
    def dispatch(self) -> Dispatch: ...
    def post(self, worker: Endpoint, message: Message) -> None: ...
    def queue(self, ticket: Ticket) -> None:
        """`sent` or `turned_away` is called in time, perhaps before this returns."""

    def unqueue(self, ticket: Ticket) -> None:
        """The ticket waits no more and needs no place; idempotent."""

    def busy(self, worker: Endpoint, retry_after_s: float) -> None: ...
    def prefilled(self, worker: Endpoint) -> None: ...
    def moved(self, source: Endpoint) -> None:
        """The worker has given the request away."""

    def generated(self, ticket: Ticket, tokens: int) -> None: ...


class Pilot:
    """One request between `start` and `leave`; everything happens within the caller's turn."""

    def __init__(
        self,
        flight: Flight,
        ticket: Ticket,
        desk: Desk,
        tally: Tally,
        sink: Sink,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self.ticket = ticket
        self._flight, self._desk, self._tally, self._sink = flight, desk, tally, sink
        self._clock, self._timers = clock, timers
        self._route: Route | None = None
        """Where it was sent last by the door."""
        self._deadline: Timer | None = None
        self._wait: Timer | None = None

    def start(self, deadline_s: float | None) -> None:
        """Take off; `deadline_s` is the client's patience."""
        if deadline_s is not None:
            self._deadline = self._timers.call_later(deadline_s, self.handle, DeadlinePassed())
        self._obey(self._flight.start())

    def handle(self, event: Event) -> None:
        """Something happened that concerns this request. A bug here ends it, and not those that share its links."""
        try:
            self._obey(self._flight.handle(event))
        except Exception as error:
            logger.exception("request %s", self.ticket.id)
            self._obey(self._flight.handle(ClientLeft()))
            self._fail(RequestFailed(f"internal error: {error!r}"))

    def leave(self) -> None:
        """The caller is gone: cancel on every worker that may still have something. Idempotent."""
        if self._tally.outcome is Outcome.RUNNING:
            satisfied = self._sink.is_satisfied
            reason = FinishReason.STOP if satisfied else FinishReason.CANCELLED
            self._tally.finished(reason, self._clock.now_s())
        self.handle(ClientLeft())
        self._land()

    def fail(self, error: TercetError) -> None:
        """End the request from this side, unless it has ended."""
        if self._tally.outcome is Outcome.RUNNING:
            self.handle(ClientLeft())
            self._fail(error)

    def record(self) -> RequestRecord:
        """What is known so far."""
        flight = self._flight
        return self._tally.record(self._clock.now_s(), flight.replays, flight.refusals)

    def sent(self, route: Route) -> None:
        """The door has found a worker and charged it."""
        self._route = route
        self._tally.begun(route, self._clock.now_s())
        self.handle(Chosen(route.view.endpoint, route.hand_off))
        self._sink.begun()

    @property
    def custody(self) -> Custody:
        """Who has the request; to be read only."""
        return self._flight.custody

    def relocate(self, to: WorkerId | None = None) -> Endpoint:
        """Have another worker take the request over while it runs; returns which. Raises `MoveRefused`, nothing changed."""
        owner = self.custody.owner
        if owner is None:
            raise MoveRefused(f"it is {self.custody.phase} now; only what decodes can be moved")
        if owner.worker == to:
            raise MoveRefused(f"it is at {to} already")
        output_tokens, now_s = len(self._flight.log.tokens), self._clock.now_s()
        dispatch = self._desk.dispatch
        choice = dispatch.relocate(self.ticket.errand, output_tokens, owner, now_s, to)
        if choice is None:
            raise MoveRefused(f"{to} may not be asked now" if to else dispatch.why_none())
        self._tally.relocated(owner.worker, choice, now_s)
        self.handle(Relocated(choice.view.endpoint))
        return choice.view.endpoint

    def turned_away(self, error: Unavailable) -> None:
        """The door has found none."""
        self.handle(TurnedAway(error))

    def _obey(self, commands: list[Command]) -> None:
        errand, desk = self.ticket.errand, self._desk
        for command in commands:
            match command:
                case Deliver(tokens, logprobs):
                    self._tally.arrived(len(tokens), self._clock.now_s())
                    desk.generated(self.ticket, len(tokens))
                    self._sink.deliver(tokens, logprobs)
                case Send(worker, message):
                    desk.post(worker, message)
                case Prefilled(worker):
                    errand.slot.prefilled(worker)
                    desk.prefilled(worker)
                case Closed(worker):
                    errand.slot.strike(worker)
                case Moved(source, reason):
                    self._tally.moved(reason, self._clock.now_s())
                    if not reason:
                        desk.moved(source)
                case Busy(worker, retry_after_s):
                    desk.busy(worker, retry_after_s)
                    self._refused_by(worker)
                case ChooseWorker(exclude):
                    self._begin(exclude)
                case ChooseDestination(_, exclude):
                    self._adopt(exclude)
                case Bill(usage, of_source):
                    self._tally.billed(usage, of_source)
                case Wait(delay_s):
                    self._sleep(delay_s)
                case Finish(reason, worker):
                    self._finish(reason, worker)
                case Fail(error):
                    self._fail(error)

    def _begin(self, exclude: frozenset[WorkerId]) -> None:
        self.ticket.again(len(self._flight.log.tokens), exclude, self._clock.now_s())
        self._desk.queue(self.ticket)
        if self._flight.phase is Phase.CHOOSING:
            self._tally.waits += 1

    def _adopt(self, exclude: frozenset[WorkerId]) -> None:
        output_tokens, now_s = len(self._flight.log.tokens), self._clock.now_s()
        dispatch = self._desk.dispatch
        choice = dispatch.adopt(self.ticket.errand, output_tokens, exclude, now_s)
        if choice is None:
            self.handle(NoneUsable(dispatch.why_none()))
            return
        self._tally.bound(choice)
        self.handle(Bound(choice.view.endpoint))

    def _refused_by(self, worker: Endpoint) -> None:
        if self._route is not None and self._route.view.endpoint == worker:
            self._desk.dispatch.refused(self.ticket.errand, self._route, self._clock.now_s())

    def _sleep(self, delay_s: float) -> None:
        self._tally.waits += 1
        if self._wait is not None:
            self._wait.cancel()
        self._wait = self._timers.call_later(delay_s, self.handle, Waited())

    def _finish(self, reason: FinishReason, worker: Endpoint | None) -> None:
        if worker is not None:
            output, now_s = self._flight.log.tokens, self._clock.now_s()
            self._desk.dispatch.remember(self.ticket.errand, worker, output, now_s)
        self._tally.finished(reason, self._clock.now_s())
        self._sink.finish(reason)
        self._land()

    def _fail(self, error: TercetError) -> None:
        self._tally.failed(error, self._clock.now_s())
        self._sink.fail(error)
        self._land()

    def _land(self) -> None:
        """Nothing will happen any more."""
        for timer in (self._deadline, self._wait):
            if timer is not None:
                timer.cancel()
        self._deadline = self._wait = None
        self._desk.unqueue(self.ticket)
        self._sink.end()
