"""How many tokens, turns or images: distributions that can be written into a file and drawn from with given dice."""

import math
import random
from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Annotated

import msgspec
from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=1 << 26)]
Weight = Annotated[float, Meta(ge=0)]

_NORMAL_P99 = 2.3263478740408408


class Fixed(msgspec.Struct, frozen=True, tag_field="is", tag="fixed"):
    """Always the same."""

    value: Count

    def drawing(self, dice: random.Random) -> Callable[[], int]:
        return lambda: self.value


class Lognormal(msgspec.Struct, frozen=True, tag_field="is", tag="lognormal"):
    """By two of its quantiles, as published tables give them; cut off at `max`."""

    p50: Annotated[float, Meta(gt=0)]
    p99: Annotated[float, Meta(gt=0)]
    max: Count = 131_072

    def drawing(self, dice: random.Random) -> Callable[[], int]:
        middle, sigma = math.log(self.p50), math.log(self.p99 / self.p50) / _NORMAL_P99
        return lambda: min(self.max, max(1, round(math.exp(middle + sigma * dice.gauss(0, 1)))))


class Empirical(msgspec.Struct, frozen=True, tag_field="is", tag="empirical"):
    """Values, each as often as its weight says."""

    values: Annotated[list[Count], Meta(min_length=1)]
    weights: list[Weight]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.values) or not sum(self.weights) > 0:
            raise ValueError(f"{len(self.values)} values need as many weights, not all zero")

    def drawing(self, dice: random.Random) -> Callable[[], int]:
        upto, values = list(accumulate(self.weights)), self.values
        total = upto[-1]
        last = len(values) - 1
        return lambda: values[min(last, bisect_right(upto, dice.random() * total))]


class Mixture(msgspec.Struct, frozen=True, tag_field="is", tag="mixture"):
    """One of several, each as often as its weight says: a model that reasons sometimes has two hills of output lengths."""

    parts: Annotated[list["Lengths"], Meta(min_length=1)]
    weights: list[Weight]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.parts) or not sum(self.weights) > 0:
            raise ValueError(f"{len(self.parts)} parts need as many weights, not all zero")

    def drawing(self, dice: random.Random) -> Callable[[], int]:
        choose = Empirical(list(range(len(self.parts))), self.weights).drawing(dice)
        drawings = [part.drawing(dice) for part in self.parts]
        return lambda: drawings[choose()]()


Lengths = Fixed | Lognormal | Empirical | Mixture
