"""Everybody in turn: at equal costs the lowest-cost pick takes whose last turn was longest ago."""

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Dice, Free, LowestCost, NotSuspect, Policy


class RoundRobinOptions(PolicyOptions, frozen=True, kw_only=True):
    """Those of every policy."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), Free(), LowestCost())
