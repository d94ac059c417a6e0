"""Blocks to compute plus blocks in use, weighted: the rule of Dynamo's KV router, from its public documentation.

Cost = overlap_weight · (prompt blocks this request lacks + prompt blocks pending) + blocks being decoded. With a
temperature the choice is drawn by softmax of the negative costs, scaled by the greatest, so that several front doors with
the same old reports do not all send to one worker.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Dice, LowestCost, NotSuspect, Pick, Policy, Scored, WorkerView

NonNegative = Annotated[float, Meta(ge=0)]
_DRAWS = 2**53


@dataclass(frozen=True, slots=True)
class BlockCost:
    """Counted in tokens, like every cost here: a block's worth of tokens is a constant factor."""

    overlap_weight: float

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        prefill_tokens = view.miss_tokens(ask) + view.ahead_tokens
        return self.overlap_weight * prefill_tokens + (view.load_tokens - view.ahead_tokens)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Draws a candidate with probability exp(-cost / greatest cost / temperature), normalised."""

    temperature: float
    dice: Dice

    def pick(self, candidates: Sequence[Scored]) -> Scored:
        scale = max(scored.cost_tokens for scored in candidates) * self.temperature
        best = min(scored.cost_tokens for scored in candidates)
        weights = [
            math.exp((best - scored.cost_tokens) / scale) if scale else 1.0 for scored in candidates
        ]
        left = sum(weights) * self.dice.randrange(_DRAWS) / _DRAWS
        for scored, weight in zip(candidates, weights, strict=True):
            left -= weight
            if left < 0:
                return scored
        return candidates[-1]  # rounding may leave a crumb


class KvCostOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `kv_cost`."""

    overlap_weight: NonNegative = 1
    temperature: NonNegative = 0
    """0 takes the cheapest."""

    def build(self, dice: Dice) -> Policy:
        pick: Pick = Softmax(self.temperature, dice) if self.temperature else LowestCost()
        return Policy((NotSuspect(),), BlockCost(self.overlap_weight), pick)
