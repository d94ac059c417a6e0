"""When requests come: a renewal process whose rate changes and whose gaps are as bursty as wanted.

Gaps have mean 1 on a clock of their own, which runs as fast as the rate says, so that a burst crosses a change of rate, and
hours of rate 0 simply pass. The process is in its equilibrium from the start: the first gap is what is left of one that an
onlooker falls into.
"""

import math
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

SHAPE_MIN, SHAPE_MAX = 0.02, 1000.0
"""Less is a burst with nothing after it, more is a metronome."""


class Gaps(Protocol):
    """Times between arrivals, with mean 1."""

    def draw(self, dice: random.Random) -> float: ...

    def rest(self, dice: random.Random) -> float:
        """What is left of a gap at a random moment."""
        ...


class GammaGaps(NamedTuple):
    shape: float

    @classmethod
    def of_cv(cls, cv: float) -> "GammaGaps":
        return cls(_bounded(1 / cv**2))

    def draw(self, dice: random.Random) -> float:
        return dice.gammavariate(self.shape, 1 / self.shape)

    def rest(self, dice: random.Random) -> float:
        return dice.random() * dice.gammavariate(self.shape + 1, 1 / self.shape)


class WeibullGaps(NamedTuple):
    shape: float

    @classmethod
    def of_cv(cls, cv: float) -> "WeibullGaps":
        """The coefficient of variation falls with the shape, so it is found by halving."""
        low, high = SHAPE_MIN, SHAPE_MAX
        for _ in range(60):
            middle = math.sqrt(low * high)
            low, high = (middle, high) if _weibull_cv(middle) > cv else (low, middle)
        return cls(high)

    def draw(self, dice: random.Random) -> float:
        return dice.weibullvariate(1 / math.gamma(1 + 1 / self.shape), self.shape)

    def rest(self, dice: random.Random) -> float:
        longer = math.pow(dice.gammavariate(1 + 1 / self.shape, 1), 1 / self.shape)
        return dice.random() * longer / math.gamma(1 + 1 / self.shape)


class Period(NamedTuple):
    """A stretch of time with one rate."""

    from_s: float
    until_s: float
    per_s: float
    gaps: Gaps


def arrival_times(periods: Iterable[Period], dice: random.Random) -> Iterator[float]:
    """Seconds, ascending, within the periods, which follow each other."""
    need: float | None = None
    for period in periods:
        if period.per_s <= 0:
            continue
        if need is None:
            need = period.gaps.rest(dice)
        now_s = period.from_s
        while need < (left := (period.until_s - now_s) * period.per_s):
            now_s += need / period.per_s
            yield now_s
            need = period.gaps.draw(dice)
        need -= left


def _weibull_cv(shape: float) -> float:
    once, twice = math.lgamma(1 + 1 / shape), math.lgamma(1 + 2 / shape)
    return math.sqrt(math.expm1(min(700.0, twice - 2 * once)))


def _bounded(shape: float) -> float:
    return min(SHAPE_MAX, max(SHAPE_MIN, shape))
