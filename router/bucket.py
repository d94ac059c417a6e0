"""A token bucket: so much a second on average, a few seconds' worth of it at once.

Its one fact is the time at which it will be full again if nothing more is taken. What is more than a full bucket may be taken
from a full one and leaves a debt, else it could never be; and so does what nobody could foresee.
"""

import math
from dataclasses import dataclass

DEBT_S_MAX = 3600.0
"""An hour of the rate: what was not foreseen and goes beyond is forgiven, lest somebody be told to come back tomorrow."""
EARLY_S_MAX = 1e-6
"""Who was told to wait and comes so much too early has been rounded, and is in time."""


@dataclass(slots=True)
class Bucket:
    """Full when new. Times are the caller's; they only run forward."""

    per_s: float
    """Infinite where there is no limit."""
    burst_s: float
    """Seconds of `per_s` that are in a full one."""
    full_at_s: float = -math.inf

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until so much may be taken, if nobody else takes any; 0 for at once."""
        left_s = max(0.0, self.burst_s - amount / self.per_s)
        wait_s = self.full_at_s - left_s - now_s
        return wait_s if wait_s > EARLY_S_MAX else 0.0

    def take(self, amount: float, now_s: float) -> None:
        """Take so much, which is there: `wait_s` was 0."""
        self.full_at_s = max(self.full_at_s, now_s) + amount / self.per_s

    def owe(self, amount: float, now_s: float) -> None:
        """Take so much, whether it is there or not; a debt does not grow beyond `DEBT_S_MAX`."""
        full_at_s = max(self.full_at_s, now_s) + amount / self.per_s
        latest_s = max(self.full_at_s, now_s + self.burst_s + DEBT_S_MAX)
        self.full_at_s = min(full_at_s, latest_s)
