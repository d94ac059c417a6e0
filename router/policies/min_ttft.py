"""The earliest first token, predicted for everybody: Mooncake's rule without its remote cache (FAST '25).

Knows no affinity but what a hit saves: a busy worker's prefixes soon lie on every other one too.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from tercet.router.forecast import Forecast
from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Ask, Dice, LowestCost, NotSuspect, Policy, WorkerView


@dataclass(frozen=True, slots=True)
class PredictedTtft:
    """The predicted time, as the tokens that the assumed speed would compute in it."""

    forecast: Forecast
    tokens_per_s: float

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        return self.forecast.ttft_s(ask, view) * self.tokens_per_s


class MinTtftOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `min_ttft`."""

    assumed_tokens_per_s: Annotated[float, Meta(gt=0)] = 10_000
    """Speed of a worker that nobody has measured yet."""

    def build(self, dice: Dice) -> Policy:
        speed = self.assumed_tokens_per_s
        return Policy((NotSuspect(),), PredictedTtft(Forecast(speed), speed), LowestCost())
