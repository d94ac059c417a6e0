"""The thread that owns the engine. Commands go in from the event loop, a step's events come back to it in one piece."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from tercet.clock import MonotonicClock
from tercet.errors import TercetError
from tercet.workers.engine import Engine
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""Python's default of 5 ms would let a busy engine keep the links and the transfer waiting that long, each time."""
LOAD_AGE_S_MAX = 0.02
"""Figures are read anew when they are this old, and whenever the engine runs out of work."""
UNDELIVERED_STEPS_MAX = 64
"""So many steps the engine may be ahead of the event loop; then it waits, because nobody could take its tokens."""

T = TypeVar("T")
Deliver = Callable[[list[Event]], None]


class EngineStuck(TercetError):
    """The thread does not come back from a step; nothing but the end of the process ends that."""


class EngineThread:
    """Steps the engine while it has work and sleeps otherwise.

    `open_engine` runs on the thread, so that all of the model's life happens there. `deliver` and `crashed` are called on
    the event loop that called `start`. Commands are few for each request, and the engine refuses requests beyond its
    bound, so the inbox needs none of its own.
    """

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        deliver: Deliver,
        crashed: Callable[[BaseException], None],
        name: str,
    ) -> None:
        self._open_engine = open_engine
        self._deliver = deliver
        self._crashed = crashed
        self._inbox: deque[Command] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._undelivered = 0
        self._clock = MonotonicClock()
        self._load: EngineLoad | None = None
        self._load_s = 0.0
        self._step_began_s: float | None = None
        self._thread = threading.Thread(target=self._main, name=f"engine {name}", daemon=True)

    async def start(self) -> Engine:
        """Load the engine; returns it for its unchanging facts. Raises whatever loading raised."""
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[Engine] = self._loop.create_future()
        self._thread.start()
        return await self._loaded

    async def stop(self) -> None:
        """End the thread after the step it is in; events of that step are not delivered. Idempotent."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join)

    def post(self, *commands: Command) -> None:
        """Give commands to the engine, in order; never blocks."""
        with self._changed:
            self._inbox.extend(commands)
            self._changed.notify()

    @property
    def load(self) -> EngineLoad:
        """Recent figures: as of now when the engine is idle."""
        assert self._load is not None, "not started"
        return self._load

    def check_step(self, limit_s: float) -> None:
        """Raises EngineStuck when the engine is in one step for longer than `limit_s`."""
        began_s = self._step_began_s  # read once: the thread may end its step meanwhile
        if began_s is not None and self._clock.now_s() - began_s > limit_s:
            raise EngineStuck(
                f"one step has taken more than {limit_s:g} s; if steps may take that long,"
                " set a larger control.step_timeout_s or a smaller engine.step_tokens_max"
            )

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _main(self) -> None:
        try:
            engine = self._open_engine()
        except BaseException as exc:
            self._on_loop(self._announce, exc)
            return
        self._load = engine.load()
        self._on_loop(self._announce, engine)
        try:
            self._run(engine)
        except BaseException as exc:
            logger.exception("the engine has failed")
            self._on_loop(self._crashed, exc)

    def _run(self, engine: Engine) -> None:
        while True:
            with self._changed:
                while not self._stopping and not self._ready(engine):
                    self._changed.wait()
                if self._stopping:
                    return
            self._step_began_s = self._clock.now_s()
            for command in self.commands():
                engine.handle(command)
            events = engine.step(self) if engine.has_work else []
            self._step_began_s = None
            self._look_at(engine)
            if events:
                self.say(events)

    def commands(self) -> list[Command]:
        """What was posted since the last call; for the engine, on its thread."""
        if not self._inbox:  # the usual case, amid a step
            return []
        with self._changed:
            commands = list(self._inbox)
            self._inbox.clear()
        return commands

    def say(self, events: list[Event]) -> None:
        """Give these to the event loop; for the engine, on its thread."""
        with self._changed:
            self._undelivered += 1
        self._on_loop(self._hand_over, events)

    def _look_at(self, engine: Engine) -> None:
        now_s = self._clock.now_s()
        if now_s - self._load_s > LOAD_AGE_S_MAX or not engine.has_work:
            self._load, self._load_s = engine.load(), now_s

    def _ready(self, engine: Engine) -> bool:
        if self._undelivered >= UNDELIVERED_STEPS_MAX:
            return False
        return bool(self._inbox) or engine.has_work

    # ---- the loop ----------------------------------------------------------------------------------------------------

    def _announce(self, outcome: Engine | BaseException) -> None:
        if self._loaded.done():  # nobody waits for it any more
            return
        if isinstance(outcome, BaseException):
            self._loaded.set_exception(outcome)
        else:
            self._loaded.set_result(outcome)

    def _hand_over(self, events: list[Event]) -> None:
        with self._changed:
            self._undelivered -= 1
            if self._undelivered == UNDELIVERED_STEPS_MAX - 1:
                self._changed.notify()
        self._deliver(events)

    def _on_loop(self, call: Callable[[T], object], argument: T) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, argument)
