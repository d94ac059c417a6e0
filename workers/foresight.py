"""How long outputs become, learned from those that have ended, and how much memory a batch will need at its worst. Pure.

After Past-Future scheduling (ASPLOS'25, arXiv 2507.10150).
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

WINDOW = 512
"""Outputs that are remembered: enough for a tail of one in a hundred, few enough to follow a change of users in minutes."""


class OutputLengths:
    """The lengths of the last outputs that ended, in tokens."""

    def __init__(self) -> None:
        self._recent: deque[int] = deque()
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._recent)

    def observe(self, tokens: int) -> None:
        """An output has ended with so many."""
        if len(self._recent) == WINDOW:
            oldest = self._recent.popleft()
            del self._sorted[bisect_right(self._sorted, oldest) - 1]
        self._recent.append(tokens)
        insort(self._sorted, tokens)

    def predict(self, produced: int, share: float) -> int:
        """How long one becomes that has `produced` tokens: the quantile `share`, in [0, 1), of those that became longer.

        Of one that is longer than all before it nothing is known but that it is long: it may become as long again.
        """
        shorter = bisect_right(self._sorted, produced)
        longer = len(self._sorted) - shorter
        if not longer:
            return 2 * produced
        return self._sorted[shorter + int(share * longer)]


class Growth(NamedTuple):
    """A request's memory: `held` until it has grown by `more` blocks, one in each round, and then none."""

    held: int
    more: int


def peak(growths: Iterable[Growth]) -> int:
    """The most blocks these need together at any time, if all grow evenly.

    Need is greatest just before somebody ends; when the k-th longest-lived does, it and the k - 1 that outlive it are left,
    and each has grown as much as it.
    """
    most = held = 0
    longest_first = sorted(growths, key=lambda growth: -growth.more)
    for left, growth in enumerate(longest_first, 1):
        held += growth.held
        most = max(most, held + left * growth.more)
    return most
