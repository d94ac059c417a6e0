"""What is kept of each request that has ended: a row of numbers, some 50 bytes, so that a million of them fit."""

import math
from array import array

from tercet.config import SloConfig
from tercet.router.record import Outcome, RequestRecord

SERVED, FAILED, REJECTED = range(3)

_REJECTED = (Outcome.OVERLOADED, Outcome.NO_WORKERS)
_SERVED = (Outcome.LENGTH, Outcome.STOP)


class Columns:
    """Rows in the order in which requests ended. What a request does not have is NaN."""

    def __init__(self) -> None:
        self.at_s = array("d")
        """Its arrival."""
        self.ttft_s = array("d")
        self.tpot_s = array("d")
        """Mean time between its tokens."""
        self.pause_s = array("d")
        """The longest time between two of its tokens."""
        self.prompt_tokens = array("Q")
        self.cached_tokens = array("Q")
        self.outcome = array("B")

    def __len__(self) -> int:
        return len(self.at_s)

    def add(self, at_s: float, record: RequestRecord, pause_s: float | None) -> None:
        self.at_s.append(at_s)
        self.ttft_s.append(_seconds(record.ttft_ms))
        self.tpot_s.append(_seconds(record.itl_ms))
        self.pause_s.append(math.nan if pause_s is None else pause_s)
        self.prompt_tokens.append(record.prompt_tokens)
        self.cached_tokens.append(record.cached_tokens)
        self.outcome.append(_code(record.outcome))

    def arrived_after(self, share: float) -> "Columns":
        """Only the requests that arrived later than this first share of the time in which all arrived."""
        if not share or not len(self):
            return self
        first_s, last_s = min(self.at_s), max(self.at_s)
        from_s = first_s + share * (last_s - first_s)
        counted = Columns()
        for name, column in vars(self).items():
            rows = (value for at_s, value in zip(self.at_s, column, strict=True) if at_s >= from_s)
            getattr(counted, name).extend(rows)
        return counted

    def count(self, outcome: int) -> int:
        return self.outcome.count(outcome)

    def hit_rate(self) -> float:
        """Of the prompt tokens of requests that were served: how many their workers found in their caches."""
        rows = zip(self.outcome, self.prompt_tokens, self.cached_tokens, strict=True)
        prompt = cached = 0
        for outcome, prompt_tokens, cached_tokens in rows:
            if outcome == SERVED:
                prompt += prompt_tokens
                cached += cached_tokens
        return cached / prompt if prompt else 0.0

    def slo_attainment(self, slo: SloConfig) -> float:
        """The share of all requests that were served and kept both promises; who has a single token has no pace to keep."""
        ttft_s, itl_s = slo.ttft_ms / 1e3, slo.itl_ms / 1e3
        rows = zip(self.outcome, self.ttft_s, self.tpot_s, strict=True)
        kept = sum(
            outcome == SERVED and ttft <= ttft_s and not tpot > itl_s
            for outcome, ttft, tpot in rows
        )
        return kept / len(self) if len(self) else 0.0


def ordered(column: "array[float]") -> "array[float]":
    """The numbers of a column, smallest first."""
    return array("d", sorted(value for value in column if not math.isnan(value)))


def _seconds(ms: float | None) -> float:
    return math.nan if ms is None else ms / 1e3


def _code(outcome: Outcome) -> int:
    if outcome in _SERVED:
        return SERVED
    return REJECTED if outcome in _REJECTED else FAILED
