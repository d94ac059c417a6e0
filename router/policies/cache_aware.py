"""The longest match while queues are even, the shortest queue when they are not: the rule of SGLang's router.

Its tuning is its weakness: the thresholds that suit one workload lose most of the cache, or most of the balance, in another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Choice, Dice, LowestCost, Pool, Scored


class CacheAwareReason(StrEnum):
    """Why a request went to a worker."""

    UNEVEN = "uneven"
    """Queues differ too much: the shortest."""
    MATCH = "match"
    """Enough of the prompt is cached there."""
    NO_MATCH = "no_match"
    """Nobody has enough: the one with most memory to spare."""


@dataclass(frozen=True, slots=True)
class CacheAware:
    """Queues are this front door's own requests, as SGLang's router counts them."""

    match_share_min: float
    uneven_requests: int
    uneven_ratio: float
    pick: LowestCost

    def choose(self, ask: Ask, pool: Pool) -> Choice | None:
        views = [view for view in pool if not view.suspect]
        if not views:
            return None
        queues = [view.outstanding for view in views]
        longest, shortest = max(queues), min(queues)
        if longest - shortest > self.uneven_requests and longest > self.uneven_ratio * shortest:
            scored = [Scored(view, float(view.outstanding)) for view in views]
            return self._cheapest(scored, CacheAwareReason.UNEVEN)
        if max(view.hit_tokens for view in views) > self.match_share_min * ask.tokens:
            scored = [Scored(view, float(view.miss_tokens(ask))) for view in views]
            return self._cheapest(scored, CacheAwareReason.MATCH)
        used = [(view, view.report.blocks_used if view.report else 0) for view in views]
        scored = [Scored(view, float(blocks * ask.block_tokens)) for view, blocks in used]
        return self._cheapest(scored, CacheAwareReason.NO_MATCH)

    def _cheapest(self, scored: Sequence[Scored], reason: CacheAwareReason) -> Choice:
        return Choice(self.pick.pick(scored).view, tuple(scored), reason)


class CacheAwareOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `cache_aware`."""

    match_share_min: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Share of the prompt that must be cached for a match."""
    uneven_requests: Annotated[int, Meta(ge=0)] = 32
    uneven_ratio: Annotated[float, Meta(ge=1)] = 1.5
    """Queues are uneven when the longest is both so many requests and so many times longer than the shortest."""

    def build(self, dice: Dice) -> CacheAware:
        return CacheAware(
            self.match_share_min, self.uneven_requests, self.uneven_ratio, LowestCost()
        )
