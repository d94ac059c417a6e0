"""Time that passes when nothing is left to be done now. A clock and an event loop's timers for the code that is simulated."""

import math
from collections import deque
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
        self._now: deque[Alarm] = deque()
        """What is to happen at this time, and was asked for since it came: after what was asked for before."""

    def now_s(self) -> float:
        return self._now_s

    def call_at(self, at_s: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        """At that time, or now if that is over."""
        if at_s <= self._now_s:
            alarm = Alarm(self._now_s, 0, callback, args)
            self._now.append(alarm)
            return alarm
        self._asked += 1
        alarm = Alarm(at_s, self._asked, callback, args)
        heappush(self._heap, alarm)
        return alarm

    def call_later(self, delay: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> Alarm:
        return self.call_at(self._now_s + delay, callback, *args)

    def run(self, while_: Callable[[], bool], until_s: float = math.inf) -> None:
        """Let things happen as long as `while_` holds and there is any before `until_s`."""
        heap, now = self._heap, self._now
        while (now or heap) and while_():
            if now and not (heap and heap[0].at_s <= self._now_s):
                alarm = now.popleft()
            elif heap[0].at_s > until_s:
                return
            else:
                alarm = heappop(heap)
            callback = alarm.callback
            if callback is not None:
                self._now_s = alarm.at_s
                callback(*alarm.args)
