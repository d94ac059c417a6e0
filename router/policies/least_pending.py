"""Least work ahead, whatever the caches hold: the baseline that spreads every prefix over all workers."""

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Dice, LowestCost, NotSuspect, Policy, WorkerView


class Load:
    """Tokens ahead of or beside the request."""

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        return float(view.load_tokens)


class LeastPendingOptions(PolicyOptions, frozen=True, kw_only=True):
    """Those of every policy."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), Load(), LowestCost())
