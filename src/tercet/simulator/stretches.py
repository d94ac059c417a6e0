"""Times between tokens, although a simulated machine says many tokens at once and a step is counted, not looked at.

A machine keeps one journal of its steps. While a request decodes without a break, each of its gaps is one of those steps;
so its own histogram is what was entered between two moments.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tercet.clock import Clock
from tercet.ids import RequestId
from tercet.workers.sequence import Sequence

BIN_RATIO = 1.02
"""Gaps are known to 1 %."""
_LEAST_S = 1e-6
_BINS_PER_E = 1.0 / math.log(BIN_RATIO)


def bin_of(seconds: float) -> int:
    return int(math.log(max(seconds, _LEAST_S) / _LEAST_S) * _BINS_PER_E)


def middle_s(number: int) -> float:
    """The middle of a bin."""
    return _LEAST_S * math.exp((number + 0.5) / _BINS_PER_E)


def _begin_s(number: int) -> float:
    return _LEAST_S * math.exp(number / _BINS_PER_E)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Tokens of one request that one machine drew step after step."""

    request: RequestId
    first_s: float
    """When the first of them was there."""
    last_s: float
    gaps: dict[int, int]
    """How many of the times between them lie in which bin."""


Told = Callable[[Stretch], None]
"""Told when a stretch is over, before the message with its last token is on its way."""


@dataclass(slots=True)
class Gaps:
    """Times between tokens: of one request, all its stretches in their order, or of many requests."""

    counts: dict[int, int] = field(default_factory=dict)
    last_s: float | None = None

    def add(self, stretch: Stretch) -> None:
        """The next stretch of the request; what lies between it and the one before is a gap too.

        Where a destination repeats the token of the source, that is no token of its stretch.
        """
        if self.last_s is not None:
            self._count({bin_of(stretch.first_s - self.last_s): 1})
        self._count(stretch.gaps)
        self.last_s = stretch.last_s

    def merge(self, other: "Gaps") -> None:
        """Of another request."""
        self._count(other.counts)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    def longest_s(self) -> float | None:
        """None without any."""
        return middle_s(max(self.counts)) if self.counts else None

    def quantile_s(self, share: float) -> float | None:
        """The gap that this share of all gaps does not exceed; None without any."""
        rest = share * self.total
        for number in sorted(self.counts):
            rest -= self.counts[number]
            if rest <= 0:
                return middle_s(number)
        return None

    def _count(self, more: dict[int, int]) -> None:
        counts = self.counts
        for number, count in more.items():
            counts[number] = counts.get(number, 0) + count


class StepTimes:
    """The journal of a machine's steps, in sections: a histogram of those between two marks each."""

    def __init__(self) -> None:
        self._sections: list[dict[int, int]] = [{}]
        self._dropped = 0
        """Sections that nobody asks for any more."""

    def mark(self) -> int:
        """A place to count from: the number of the section that begins now."""
        if self._sections[-1]:
            self._sections.append({})
        return self._dropped + len(self._sections) - 1

    def add(self, first_s: float, growth_s: float, steps: int) -> None:
        """Steps of which each takes `growth_s` longer than the one before."""
        number, done = bin_of(first_s), 0
        last = bin_of(first_s + (steps - 1) * growth_s) if steps > 1 else number
        while number < last:
            upto = math.ceil((_begin_s(number + 1) - first_s) / growth_s)
            self._count(number, upto - done)
            done, number = upto, number + 1
        self._count(number, steps - done)

    def since(self, mark: int) -> dict[int, int]:
        """What was added since that mark was made, by bin."""
        counts: dict[int, int] = {}
        for section in self._sections[mark - self._dropped :]:
            for number, steps in section.items():
                counts[number] = counts.get(number, 0) + steps
        return counts

    def forget(self, mark: int) -> None:
        """Nobody asks for what was before. Kept is at most twice as much as somebody may ask for."""
        unwanted = mark - self._dropped
        if 2 * unwanted > len(self._sections):
            del self._sections[:unwanted]
            self._dropped = mark

    def _count(self, number: int, steps: int) -> None:
        section = self._sections[-1]
        section[number] = section.get(number, 0) + steps


@dataclass(slots=True)
class _Open:
    first_s: float
    mark: int
    no_gap: int | None = None
    """The bin of a step after the mark that brings the first token."""

    def gaps(self, times: StepTimes) -> dict[int, int]:
        gaps = times.since(self.mark)
        if self.no_gap in gaps:
            gaps[self.no_gap] -= 1
        return {number: count for number, count in gaps.items() if count}


class Stretches:
    """Of all sequences of one machine."""

    def __init__(self, clock: Clock, told: Told) -> None:
        self.times = StepTimes()
        self._clock, self._told = clock, told
        self._open: dict[Sequence, _Open] = {}
        """Who began first first."""

    def drawn(self, sequence: Sequence) -> None:
        """It has got a token just now; a stretch begins unless one is open."""
        if sequence not in self._open:
            self._open[sequence] = _Open(self._clock.now_s(), self.times.mark())

    def draws(self, sequence: Sequence, first_s: float, step_s: float) -> None:
        """The same for a token that it will get in the step that begins, which takes `step_s`; that is no gap of its own."""
        if sequence not in self._open:
            self._open[sequence] = _Open(first_s, self.times.mark(), bin_of(step_s))

    def end(self, sequence: Sequence) -> None:
        """It has left the batch, its last token drawn just now, if there was any."""
        self._close(sequence, self._clock.now_s())

    def end_all(self, last_s: float) -> None:
        """The machine is no more; the last step ended then."""
        for sequence in list(self._open):
            self._close(sequence, last_s)

    def _close(self, sequence: Sequence, last_s: float) -> None:
        stretch = self._open.pop(sequence, None)
        if stretch is None:
            return
        if stretch.first_s <= last_s:
            self._told(Stretch(sequence.id, stretch.first_s, last_s, stretch.gaps(self.times)))
        oldest = next(iter(self._open.values()), None)
        self.times.forget(self.times.mark() if oldest is None else oldest.mark)
