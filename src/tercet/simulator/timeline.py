"""Time that passes when nothing is left to be done now. A clock and an event loop's timers for the code that is simulated."""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


class Alarm:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("args", "callback")

    def __init__(self, callback: Callable[..., object], args: tuple[object, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        self.callback, self.args = None, ()


class Timeline:
    """Things happen in the order of their times, and those of one time in the order in which they were asked for."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._asked = 0
        self._heap: list[tuple[float, int, Alarm]] = []

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, at_s: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        """At that time, or now if that is over."""
        alarm = Alarm(callback, args)
        self._asked += 1
        now_s = self._now_s
        heappush(self._heap, (at_s if at_s > now_s else now_s, self._asked, alarm))
        return alarm

    def call_later(self, delay: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        return self.call_at(self._now_s + delay, callback, *args)

    def run(self, while_: Callable[[], bool], until_s: float = math.inf) -> None:
        """Let things happen as long as `while_` holds and there is any before `until_s`."""
        heap = self._heap
        while heap and while_():
            if heap[0][0] > until_s:
                return
            at_s, _, alarm = heappop(heap)
            callback = alarm.callback
            if callback is not None:
                self._now_s = at_s
                callback(*alarm.args)
