"""When to try again: exponential backoff with jitter, never sooner than the server asks for, never past the deadline."""

import random
from dataclasses import dataclass

from tercet.clock import Clock
from tercet.errors import TercetError, Unavailable


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays double from `first_s` to at most `longest_s`; each is shortened by up to half of itself at random, so that
    clients turned away together do not come back together."""

    attempts_max: int = 6
    first_s: float = 0.1
    longest_s: float = 5.0

    def delay_s(
        self, attempt: int, error: Unavailable, left_s: float | None, chance: float
    ) -> float | None:
        """Seconds to wait after failed attempt number `attempt` (from 1); None to give up.

        `left_s` is what is left of the caller's time (None: no end), `chance` is uniform in [0, 1).
        """
        if attempt >= self.attempts_max:
            return None
        longest = min(self.first_s * 2.0 ** (attempt - 1), self.longest_s)
        delay_s = max(longest * (1.0 - chance / 2.0), error.retry_after_s)
        if left_s is not None and delay_s >= left_s:
            return None
        return delay_s


class Attempts:
    """One call's attempts and the time it has for all of them together."""

    def __init__(
        self, policy: RetryPolicy, timeout_s: float | None, clock: Clock, rng: random.Random
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._rng = rng
        self._end_s = None if timeout_s is None else clock.now_s() + timeout_s
        self._failed = 0

    @property
    def left_s(self) -> float | None:
        """The time an attempt may take that begins now; None when there is no end."""
        return None if self._end_s is None else max(0.0, self._end_s - self._clock.now_s())

    def delay_s(self, error: TercetError) -> float | None:
        """Note a failed attempt: how long to wait before the next one, None when `error` is the call's result."""
        self._failed += 1
        if not isinstance(error, Unavailable):
            return None
        return self._policy.delay_s(self._failed, error, self.left_s, self._rng.random())
