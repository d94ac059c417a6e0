"""Least work, where work that a worker's cache saves counts.

Cost of a worker = tokens it would have to compute or pull for this request + tokens it has ahead of it. Both are in the
same unit, so affinity needs no weight: a cached prefix attracts a request exactly as far as waiting behind others costs
less than computing the prefix again. The sum is Llumnix's cache-aware metric.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Dice, LowestCost, NotSuspect, Policy, WorkerView


@dataclass(frozen=True, slots=True)
class MissAndLoad:
    """Tokens to compute here plus tokens ahead. A hit below `hit_tokens_min` is not worth leaving a tie for."""

    hit_tokens_min: int

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        useful = view.hit_tokens >= self.hit_tokens_min
        miss_tokens = view.miss_tokens(ask) if useful else ask.tokens
        return float(miss_tokens + view.load_tokens)


class PrefixAffinityOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `prefix_affinity`."""

    hit_tokens_min: Annotated[int, Meta(ge=0)] = 16
    """Cached prefixes shorter than this are ignored."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), MissAndLoad(self.hit_tokens_min), LowestCost())
