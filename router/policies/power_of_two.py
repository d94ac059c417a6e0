"""The better of two drawn at random (Mitzenmacher): nearly as even as the least loaded, and immune to herding when many
front doors decide from the same old reports."""

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.router.policies.least_pending import Load
from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Dice, NotSuspect, Policy, Scored


@dataclass(frozen=True, slots=True)
class BetterOfTwo:
    """Draws two different candidates evenly and takes the cheaper; the first drawn in a tie."""

    dice: Dice

    def pick(self, candidates: Sequence[Scored]) -> Scored:
        first = self.dice.randrange(len(candidates))
        if len(candidates) == 1:
            return candidates[first]
        second = (first + 1 + self.dice.randrange(len(candidates) - 1)) % len(candidates)
        return min(candidates[first], candidates[second], key=lambda scored: scored.cost_tokens)


class PowerOfTwoOptions(PolicyOptions, frozen=True, kw_only=True):
    """Those of every policy."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), Load(), BetterOfTwo(dice))
