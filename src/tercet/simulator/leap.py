"""Steps of an engine that are alike but for the tokens by which its sequences grow, computed as one. Pure arithmetic."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class Leap:
    """Step number `i` takes `first_s + i * growth_s` seconds."""

    start_s: float
    first_s: float
    growth_s: float
    steps: int
    taken: int = 0
    """Steps that are accounted for already."""

    def end_s(self, steps: int) -> float:
        """When so many steps are over."""
        return self.start_s + steps * self.first_s + self.growth_s * (steps * (steps - 1) // 2)

    def whole(self, now_s: float) -> int:
        """How many steps are over."""
        if now_s < self.end_s(1):
            return 0
        elapsed_s = now_s - self.start_s
        # The root of steps² growth / 2 + steps (first - growth / 2) = elapsed, in the form that bears a growth of 0.
        half = self.first_s - self.growth_s / 2
        root = half + math.sqrt(half * half + 2 * self.growth_s * elapsed_s)
        steps = int(2 * elapsed_s / root)
        while self.end_s(steps) > now_s:  # rounding
            steps -= 1
        while self.end_s(steps + 1) <= now_s:
            steps += 1
        return min(steps, self.steps)

    def step_s(self, step: int) -> float:
        """How long that step takes."""
        return self.first_s + step * self.growth_s
