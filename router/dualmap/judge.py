"""Which of the two: affinity unless it costs too much.

A judge sees the two candidates and says which one, with the reason, or that neither will do. It remembers nothing of the
request; what it costs to leave the pair is for the chooser to know.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from tercet.router.forecast import Forecast, prefill_s
from tercet.router.policy import Ask, Scored, WorkerView

LATE_PRICE = 3.0
"""Seconds that one who is late anyway must be earlier for each second of prefill that this costs more. At 0 agents' long
contexts were computed again where that helped nobody: 14 % more tokens, and 98.0 instead of 99.3 % in time."""


class PairReason(StrEnum):
    """Why a request went to a worker; shown with every request."""

    AFFINITY = "affinity"
    """It has more of the prompt cached than the other one of the pair, and is good enough."""
    BALANCE = "balance"
    """Neither has usefully more cached: the one that is earlier, or less loaded."""
    SWITCH = "switch"
    """The other one has more cached but is too slow, too full or too busy for that to count."""
    HOLDER = "holder"
    """Not of the pair, but it has usefully more of the prompt cached than both, and is good enough."""
    ALONE = "alone"
    """The only one of the pair that may be asked."""
    ESCAPE = "escape"
    """Neither of the pair will do: the best of all."""


class Verdict(NamedTuple):
    """The better candidate and why; with `ESCAPE`, the better one of two that will not do."""

    best: Scored
    reason: PairReason


class Judge(Protocol):
    """Scores workers one by one and decides between the two of a pair."""

    def score(self, ask: Ask, view: WorkerView) -> Scored: ...

    def decide(self, ask: Ask, one: Scored, other: Scored) -> Verdict: ...

    def useful_tokens(self, ask: Ask) -> float:
        """By how much more has to be cached for affinity to count."""

    def good_enough(self, ask: Ask, scored: Scored) -> bool:
        """Whether there is no need to look at workers outside the pair."""

    def better(self, ask: Ask, one: Scored, other: Scored) -> Scored:
        """The better one where affinity does not count; the first in a tie."""


@dataclass(frozen=True, slots=True)
class Affinity:
    """How much more must be cached to count: more than `hit_tokens_min`, or than `hit_share_min` of the prompt.

    Without such a floor a system prompt that everybody shares would tie all its requests to whoever had it first.
    """

    hit_tokens_min: int
    hit_share_min: float

    def floor_tokens(self, ask: Ask) -> float:
        """More than this is usefully more."""
        return min(self.hit_tokens_min, self.hit_share_min * ask.tokens)

    def nearer(self, ask: Ask, one: Scored, other: Scored) -> Scored | None:
        """The one that has usefully more of the prompt cached, if there is one."""
        more = one.view.hit_tokens - other.view.hit_tokens
        if abs(more) <= self.floor_tokens(ask):
            return None
        return one if more > 0 else other


@dataclass(frozen=True, slots=True)
class SloJudge:
    """For workers that compute prompts: the longer useful hit, unless its first token would break the promise."""

    affinity: Affinity
    forecast: Forecast
    ttft_slo_s: float
    by_load: bool = False
    """Where affinity does not count, take fewer pending tokens instead of the earlier first token: the paper's rule."""

    def score(self, ask: Ask, view: WorkerView) -> Scored:
        cost_tokens = float(view.miss_tokens(ask) + view.ahead_tokens)
        return Scored(view, cost_tokens, self.forecast.ttft_s(ask, view))

    def useful_tokens(self, ask: Ask) -> float:
        return self.affinity.floor_tokens(ask)

    def decide(self, ask: Ask, one: Scored, other: Scored) -> Verdict:
        near = self.affinity.nearer(ask, one, other)
        if near is not None and self.good_enough(ask, near):
            return Verdict(near, PairReason.AFFINITY)
        better = self.better(ask, one, other)
        if not self.good_enough(ask, better):
            return Verdict(better, PairReason.ESCAPE)
        return Verdict(better, PairReason.BALANCE if near is None else PairReason.SWITCH)

    def good_enough(self, ask: Ask, scored: Scored) -> bool:
        assert scored.predicted_ttft_s is not None, scored
        return scored.predicted_ttft_s <= self.ttft_slo_s

    def better(self, ask: Ask, one: Scored, other: Scored) -> Scored:
        def rank(scored: Scored) -> tuple[bool, float]:
            assert scored.predicted_ttft_s is not None, scored
            if self.by_load:
                return False, scored.view.ahead_tokens
            if self.good_enough(ask, scored):
                return False, scored.predicted_ttft_s
            coefficients = self.forecast.coefficients(scored.view.report)
            own_s = prefill_s(scored.view.miss_tokens(ask), ask.tokens, coefficients)
            return True, scored.predicted_ttft_s + LATE_PRICE * own_s

        return min(one, other, key=rank)
