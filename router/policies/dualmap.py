"""Options of `dualmap`; what it does is in `tercet.router.dualmap`."""

from typing import Annotated, Self

import msgspec
from msgspec import Meta

from tercet.config import SloConfig
from tercet.router.dualmap import DualMap, SloJudge
from tercet.router.dualmap.hotness import Hotness
from tercet.router.dualmap.judge import Affinity
from tercet.router.dualmap.ring import Ring
from tercet.router.forecast import Forecast
from tercet.router.policies.registry import PolicyOptions
from tercet.router.policy import Dice

Flag = Annotated[int, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)]


class DualMapOptions(PolicyOptions, frozen=True, kw_only=True):
    """Options of `dualmap`."""

    ttft_slo_ms: Annotated[float, Meta(ge=0)] = 0
    """Affinity is left when it predicts a later first token; 0 takes `slo.ttft_ms`."""
    granule_tokens: Count = 512
    """Keys are this long, or two, three … times."""
    points_per_worker: Count = 128
    hit_share_min: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """A hit counts if it is a granule longer than the other one's, or longer by this share of the prompt."""
    switch_by_load: Flag = 0
    """1: where affinity does not count, fewer pending tokens (the paper); 0: the earlier first token."""
    escape: Flag = 1
    """1: when neither of the pair keeps the promise, the best of all; 0: the better one of the pair."""
    window_s: Annotated[float, Meta(gt=0)] = 60
    window_requests: Count = 2048
    """The window in which prefixes are counted: the shorter of both."""
    requests_min: Count = 8
    """Requests that must have begun with a prefix before its keys grow."""
    depth_max: Count = 64
    """Longest key in granules."""
    assumed_tokens_per_s: Annotated[float, Meta(gt=0)] = 10_000
    """Speed of a worker that nobody has measured yet."""

    def build(self, dice: Dice) -> DualMap:
        slo_ms = self.ttft_slo_ms or SloConfig().ttft_ms
        forecast = Forecast(self.assumed_tokens_per_s)
        by_load = bool(self.switch_by_load)
        affinity = Affinity(self.granule_tokens, self.hit_share_min)
        hotness = Hotness(
            window_s=self.window_s,
            window_requests=self.window_requests,
            requests_min=self.requests_min,
            depth_max=self.depth_max,
        )
        return DualMap(
            Ring(self.points_per_worker),
            hotness,
            SloJudge(affinity, forecast, slo_ms / 1e3, by_load),
            dice,
            granule_tokens=self.granule_tokens,
            escape=bool(self.escape),
        )

    def aimed_at(self, slo: SloConfig) -> Self:
        return self if self.ttft_slo_ms else msgspec.structs.replace(self, ttft_slo_ms=slo.ttft_ms)
