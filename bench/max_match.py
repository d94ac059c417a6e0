"""The longest match wins, whatever waits there; only among equals the least load. A policy for comparisons, not for use."""

from tercet.router.policies import POLICIES
from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Dice, LowestCost, NotSuspect, Policy, WorkerView

LOAD_MAX = 2.0**32
"""Tokens; more than anybody has to do."""


class MissThenLoad:
    """A token that is missing weighs more than any load."""

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        return LOAD_MAX * view.miss_tokens(ask) + view.load_tokens


class MaxMatchOptions(PolicyOptions, frozen=True, kw_only=True):
    """Those of every policy."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), MissThenLoad(), LowestCost())


POLICIES.add("max_match", MaxMatchOptions)
