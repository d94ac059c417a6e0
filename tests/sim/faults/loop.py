"""An event loop for one simulated process: the production code's tasks, futures and timers on a shared timeline.

A process that is stopped does nothing, and what happened to it meanwhile happens when it goes on; one that is dead never does.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

from tercet.simulator.timeline import Timeline


class Handle:
    """Something that this process will do, unless it is cancelled."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback, self.args = None, ()


class ProcessLoop(asyncio.AbstractEventLoop):
    """As much of an event loop as asyncio's own futures and tasks need. Context variables are not kept."""

    def __init__(self, timeline: Timeline, process: object) -> None:
        self.process = process
        self.stopped = self.dead = False
        self.turns = 0
        """Things done so far."""
        self.forgives: tuple[type[Exception], ...] = ()
        """With which tasks may end: somebody else waits for them."""
        self._timeline = timeline
        self._parked: list[Handle] = []
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._ending = False

    @property
    def over(self) -> bool:
        """Nothing that happens from now on has any effect."""
        return self.dead or self._ending

    def time(self) -> float:
        return self._timeline.now_s()

    def call_at(self, when: float, callback: Any, *args: Any, context: object = None) -> Any:
        handle = Handle(callback, args)
        if not self._ending or when <= self._timeline.now_s():
            self._timeline.call_at(when, self._run, handle)
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: object = None) -> Any:
        now_s = self._timeline.now_s()
        # Time passes while somebody waits, however little: else who rounds down would wait for ever.
        least_s = math.nextafter(now_s, math.inf) if delay > 0.0 else now_s
        return self.call_at(max(now_s + delay, least_s), callback, *args)

    def call_soon(self, callback: Any, *args: Any, context: object = None) -> Any:
        return self.call_at(self._timeline.now_s(), callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **_: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=self)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Only tasks of the dead complain here: what the living raise is raised by `_ended`."""

    # ---- life and death ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """As SIGSTOP does."""
        self.stopped = True

    def resume(self) -> None:
        self.stopped = False
        parked, self._parked = self._parked, []
        for handle in parked:
            self._timeline.call_later(0.0, self._run, handle)

    def kill(self) -> None:
        """Nothing more happens; the coroutines are closed so that nobody warns of them later."""
        self.dead = True
        self._parked.clear()
        for task in self._tasks:
            task.get_coro().close()
        self._tasks.clear()

    def end(self) -> None:
        """As `kill`, for coroutines that would wait for something even while they are closed: tasks are cancelled, and what they
        do then they do at this very moment, to no effect. No timer runs any more."""
        self._ending = True
        self.dead = not self._tasks
        for task in list(self._tasks):
            task.cancel()

    def _run(self, handle: Handle) -> None:
        if self.stopped:
            self._parked.append(handle)
            return
        if self.dead or handle.callback is None:
            return
        self.turns += 1
        asyncio._set_running_loop(self)
        try:
            handle.callback(*handle.args)
        finally:
            asyncio._set_running_loop(None)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if self._ending:
            self.dead = not self._tasks
        elif error is not None and not isinstance(error, self.forgives):
            raise error
