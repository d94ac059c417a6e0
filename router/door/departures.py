"""How fast places are freed, and so when it is worth while to come again."""

from collections import deque

REMEMBERED = 64
"""Freed places that count for the rate."""
REMEMBERED_S = 30.0
"""Older ones say nothing about now."""
RETRY_AFTER_S_MIN = 0.1
RETRY_AFTER_S_MAX = 60.0
RETRY_AFTER_S_UNKNOWN = 1.0


def bounded_retry_s(seconds: float) -> float:
    """What a client may be told."""
    return min(max(seconds, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)


class Departures:
    """The times at which requests were over."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=REMEMBERED)

    def add(self, now_s: float) -> None:
        self._times_s.append(now_s)

    def retry_after_s(self, queued: int, now_s: float) -> float:
        """When a place for one more than those queued should be free: their number over the rate lately."""
        recent = [at_s for at_s in self._times_s if now_s - at_s <= REMEMBERED_S]
        if len(recent) < 2:
            return RETRY_AFTER_S_UNKNOWN
        rate = len(recent) / max(now_s - recent[0], 1e-3)
        return bounded_retry_s((queued + 1) / rate)
