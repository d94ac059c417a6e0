"""Flies one request: gives its state machine the events and does what it orders. Decides nothing."""

import asyncio
import logging

from tercet.clock import Clock
from tercet.errors import RequestFailed, TercetError
from tercet.ids import WorkerId
from tercet.request import FinishReason
from tercet.router.dispatch import Dispatch, Errand
from tercet.router.events import (
    Bill,
    Bound,
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
    NoneUsable,
    Prefilled,
    Send,
    Wait,
    Waited,
)
from tercet.router.flight import Flight
from tercet.router.generation import Generation
from tercet.router.record import Outcome, RequestRecord, Tally
from tercet.wire import Endpoint

logger = logging.getLogger(__name__)


class Pilot:
    """One request between `start` and `leave`; everything happens within the caller's turn of the event loop."""

    def __init__(
        self, flight: Flight, errand: Errand, dispatch: Dispatch, tally: Tally, clock: Clock
    ) -> None:
        self.generation = Generation(self.record)
        self._flight, self._errand, self._dispatch = flight, errand, dispatch
        self._tally, self._clock = tally, clock
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._deadline: asyncio.TimerHandle | None = None
        self._wait: asyncio.TimerHandle | None = None

    def start(self, deadline_s: float | None) -> None:
        """Take off; `deadline_s` is what is left of the client's patience."""
        if deadline_s is not None:
            self._deadline = self._loop.call_later(deadline_s, self.handle, DeadlinePassed())
        self._obey(self._flight.start())

    async def dispatched(self) -> None:
        """Waits until a worker was sent the request; raises why none was."""
        await self._begun

    def handle(self, event: Event) -> None:
        """Something happened that concerns this request. A bug here ends it, and not those that share its links."""
        try:
            self._obey(self._flight.handle(event))
        except Exception as error:
            logger.exception("request %s", self._errand.spec.id)
            self._obey(self._flight.handle(ClientLeft()))
            self._fail(RequestFailed(f"internal error: {error!r}"))

    def leave(self) -> None:
        """The caller is gone: cancel on every worker that may still have something. Idempotent."""
        if self._tally.outcome is Outcome.RUNNING:
            satisfied = self.generation.is_satisfied
            reason = FinishReason.STOP if satisfied else FinishReason.CANCELLED
            self._tally.finished(reason, self._clock.now_s())
        self.handle(ClientLeft())
        self.generation.end()
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

    def _obey(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Deliver(tokens, logprobs):
                    self._tally.arrived(len(tokens), self._clock.now_s())
                    self.generation.deliver(tokens, logprobs)
                case Send(worker, message):
                    self._dispatch.post(worker, message)
                case Prefilled(worker):
                    self._errand.slot.prefilled(worker)
                case Closed(worker):
                    self._errand.slot.strike(worker)
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
        output_tokens = len(self._flight.log.tokens)
        route = self._dispatch.begin(self._errand, output_tokens, exclude)
        if route is None:
            self.handle(NoneUsable(self._dispatch.why_none()))
            return
        self._tally.begun(route, self._clock.now_s())
        self.handle(Chosen(route.view.endpoint, route.hand_off))
        self._no_longer_waiting()

    def _adopt(self, exclude: frozenset[WorkerId]) -> None:
        choice = self._dispatch.adopt(self._errand, len(self._flight.log.tokens), exclude)
        if choice is None:
            self.handle(NoneUsable(self._dispatch.why_none()))
            return
        self._tally.bound(choice)
        self.handle(Bound(choice.view.endpoint))

    def _sleep(self, delay_s: float) -> None:
        self._tally.waits += 1
        if self._wait is not None:
            self._wait.cancel()
        self._wait = self._loop.call_later(delay_s, self.handle, Waited())

    def _finish(self, reason: FinishReason, worker: Endpoint | None) -> None:
        if worker is not None:
            self._dispatch.remember(self._errand, worker, self._flight.log.tokens)
        self._tally.finished(reason, self._clock.now_s())
        self.generation.finish(reason)
        self._land()

    def _fail(self, error: TercetError) -> None:
        self._tally.failed(error, self._clock.now_s())
        self.generation.fail(error)
        if not self._begun.done():
            self._begun.set_exception(error)
        self._land()

    def _land(self) -> None:
        """Nothing will happen any more."""
        for timer in (self._deadline, self._wait):
            if timer is not None:
                timer.cancel()
        self._deadline = self._wait = None
        self._no_longer_waiting()

    def _no_longer_waiting(self) -> None:
        if not self._begun.done():
            self._begun.set_result(None)
