"""Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): the owner on the ring, or the next one
clockwise that has not yet more than its share.

The key is a prefix of fixed length: where all prompts begin alike, everybody's requests have the same owner.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from tercet.router.dualmap.ring import Ring
from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Choice, Dice, Pool, Scored

Count = Annotated[int, Meta(ge=1)]


class BoundedHashReason(StrEnum):
    """Why a request went to a worker."""

    OWNER = "owner"
    OVERFLOW = "overflow"
    """The owner has its share already."""


@dataclass(frozen=True, slots=True)
class BoundedHash:
    """A worker's share is `bound` times the mean load, this request included."""

    ring: Ring
    key_tokens: int
    bound: float
    dice: Dice

    def choose(self, ask: Ask, pool: Pool) -> Choice | None:
        self.ring.sync(pool.members)
        scored = {view.worker: Scored(view, view.load_tokens) for view in pool if not view.suspect}
        if not scored:
            return None
        total = sum(candidate.cost_tokens for candidate in scored.values()) + ask.tokens
        share = self.bound * total / len(scored)
        walk = (scored[worker] for worker in self.ring.walk(self._key(ask), 0) if worker in scored)
        owner = next(walk)
        chosen, reason = owner, BoundedHashReason.OWNER
        while chosen.cost_tokens > share:  # somebody is below the mean
            chosen, reason = next(walk), BoundedHashReason.OVERFLOW
        return Choice(chosen.view, tuple(scored.values()), reason)

    def _key(self, ask: Ask) -> int:
        if not ask.names:
            return self.dice.randrange(2**64)
        blocks = min(len(ask.names), max(1, self.key_tokens // ask.block_tokens))
        return ask.names[blocks - 1]


class BoundedHashOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `bounded_hash`."""

    key_tokens: Count = 1024
    """Length of the prefix that is hashed."""
    bound: Annotated[float, Meta(gt=1)] = 1.25
    points_per_worker: Count = 128

    def build(self, dice: Dice) -> BoundedHash:
        return BoundedHash(Ring(self.points_per_worker), self.key_tokens, self.bound, dice)
