"""Anyone: the baseline every other policy must beat."""

from collections.abc import Sequence
from dataclasses import dataclass

from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Dice, Free, NotSuspect, Policy, Scored


@dataclass(frozen=True, slots=True)
class Anyone:
    """A candidate drawn evenly."""

    dice: Dice

    def pick(self, candidates: Sequence[Scored]) -> Scored:
        return candidates[self.dice.randrange(len(candidates))]


class RandomOptions(PolicyOptions, frozen=True, kw_only=True):
    """Those of every policy."""

    def build(self, dice: Dice) -> Policy:
        return Policy((NotSuspect(),), Free(), Anyone(dice))
