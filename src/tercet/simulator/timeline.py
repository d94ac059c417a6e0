"""Time that passes when nothing is left to be done now. A clock and an event loop's timers for the code that is simulated."""

import math
from collections.abc import Callable
from heapq import heappop, heappush
from typing import TypeVarTuple

import msgspec

Ts = TypeVarTuple("Ts")


class Alarm(msgspec.Struct, order=True):
    """Something that will happen, unless it is cancelled. Ordered by time, then by who asked first."""

    at_s: float
    number: int
    callback: Callable[..., object] | None
    args: tuple[object, ...]

    def cancel(self) -> None:
        self.callback, self.args = None, ()


class Timeline:
    """Things happen in the order of their times, and those of one time in the order in which they were asked for."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self._asked = 0
        self._heap: list[Alarm] = []

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, at_s: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        """At that time, or now if that is over."""
        now_s = self._now_s
        self._asked += 1
        alarm = Alarm(at_s if at_s > now_s else now_s, self._asked, callback, args)
        heappush(self._heap, alarm)
        return alarm

    def call_later(self, delay: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        return self.call_at(self._now_s + delay, callback, *args)

    def run(self, while_: Callable[[], bool], until_s: float = math.inf) -> None:
        """Let things happen as long as `while_` holds and there is any before `until_s`."""
        heap = self._heap
        while heap and while_():
            if heap[0].at_s > until_s:
                return
            alarm = heappop(heap)
            callback = alarm.callback
            if callback is not None:
                self._now_s = alarm.at_s
                callback(*alarm.args)
