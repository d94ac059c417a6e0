"""Where a request goes: the policy's choice in each pool, and whether the two are needed."""

from dataclasses import dataclass

import msgspec

from tercet.router.policy import Ask, Choice, Chooser, Pool, WorkerView
from tercet.router.split import Split, SplitReason, predict_ttft_s

CANDIDATES_MAX = 4
"""Candidates kept with a request that waits, and with its record; how many there were is kept too."""


class Route(msgspec.Struct, frozen=True, gc=False):
    """The worker that begins with a request, and everything that explains why."""

    choice: Choice
    reason: SplitReason
    miss_tokens: int
    """What the worker is thought to have to compute."""
    predicted_ttft_s: float | None

    @property
    def view(self) -> WorkerView:
        return self.choice.view

    def shortened(self) -> "Route":
        """With no more candidates than are worth keeping."""
        if len(self.choice.candidates) <= CANDIDATES_MAX:
            return self
        return msgspec.structs.replace(self, choice=self.choice.shortened(CANDIDATES_MAX))

    @property
    def hand_off(self) -> bool:
        return self.reason is SplitReason.APART


@dataclass(frozen=True, slots=True)
class Routes:
    """One policy a pool, each with its own memory, and the rule between the pools."""

    prefill: Chooser
    decode: Chooser
    split: Split

    def begin(self, ask: Ask, prefills: Pool, decodes: Pool) -> Route | None:
        """Who begins. None when no decode worker may be asked: nobody could finish the request."""
        decode = self.decode.choose(ask, decodes)
        if decode is None:
            return None
        prefill = self.prefill.choose(ask, prefills) if prefills.members else None
        reason = self.split.decide(ask, decode.view, prefill.view if prefill else None)
        choice = prefill if prefill is not None and reason is SplitReason.APART else decode
        miss_tokens = choice.view.miss_tokens(ask)
        return Route(choice, reason, miss_tokens, predict_ttft_s(ask, choice.view))

    def adopt(self, ask: Ask, decodes: Pool) -> Choice | None:
        """Who pulls the KV and decodes; asked when the prefill has begun, with the loads of that moment."""
        return self.decode.choose(ask, decodes)
