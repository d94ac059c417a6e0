"""What a simulated engine's hardware is like: how long steps take, and how fast KV gets from one machine to another."""

from dataclasses import dataclass
from typing import NamedTuple

from tercet.latency import Coefficients
from tercet.workers.pace import Pace, StepContents


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineModel:
    """One worker's GPU and its network. The defaults are a model of 8 billion parameters with grouped queries on one H100:
    40 % of its arithmetic in prefill, 80 % of its memory's bandwidth in decode, and a 200 Gbit/s adapter."""

    prefill: Coefficients = (5e-3, 40e-6, 1.3e-9)
    """c0, c1, c2 of the latency model."""
    decode: Coefficients = (6e-3, 30e-6, 5e-8)
    """d0, d1, d2; a mixed step takes the sum of both."""
    kv_bytes_per_token: int = 128 * 1024
    bandwidth_bytes_per_s: float = 25e9
    """Of a machine, each way; all that it pulls, or that is pulled from it, shares it."""
    latency_s: float = 50e-6
    """Of a message between two workers, and of a pull besides its bytes."""
    noise: float = 0.0
    """Relative standard deviation of a step's time."""
    context_tokens_max: int = 2**20

    def at_speed(self, speed: float) -> "StepCosts":
        """What steps cost on a worker of this speed: 0.5 takes twice as long."""
        assert speed > 0, f"nothing ever ends: {speed=}"
        (c0, c1, c2), (d0, d1, d2) = self.prefill, self.decode
        return StepCosts((c0 / speed, c1 / speed, c2 / speed), (d0 / speed, d1 / speed, d2 / speed))


class StepCosts(NamedTuple):
    """The latency model of one worker."""

    prefill: Coefficients
    decode: Coefficients

    def seconds(self, step: StepContents) -> float:
        """Of one step."""
        seconds = 0.0
        if step.prefill_tokens:
            c0, c1, c2 = self.prefill
            seconds += c0 + c1 * step.prefill_tokens + c2 * step.prefill_token_context
        if step.decodes:
            d0, d1, d2 = self.decode
            seconds += d0 + d1 * step.decodes + d2 * step.decode_context
        return seconds

    def growth_s(self, step: StepContents) -> float:
        """By how much the next step takes longer, when every decode is longer by the token it has got."""
        return self.decode[2] * step.decodes


class KnownPace(Pace):
    """A pace that has been fitted long ago: it says what the model is."""

    def __init__(self, costs: StepCosts) -> None:
        super().__init__()
        self._costs = costs

    @property
    def prefill_coefficients(self) -> Coefficients:
        return self._costs.prefill

    @property
    def decode_coefficients(self) -> Coefficients:
        return self._costs.decode
