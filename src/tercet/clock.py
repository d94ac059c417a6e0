"""The only reader of time. Everything else is given a `Clock`, or a plain `now_s`."""

import time
from typing import Protocol


class Clock(Protocol):
    """Seconds on a monotonic scale; only differences mean anything, and only within one process."""

    def now_s(self) -> float: ...


class MonotonicClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves when told to: for tests and simulation."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s

    def now_s(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        assert seconds >= 0, f"time does not run backwards ({seconds=})"
        self._now_s += seconds


def unix_time_s() -> int:
    """Wall-clock seconds, for `created` fields and file names; never for measuring."""
    return int(time.time())
