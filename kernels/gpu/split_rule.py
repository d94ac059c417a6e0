"""How long the splits are that decode attention cuts a request into: by its own length alone, so that its sums are always the
same. A short request is cut finer, since alone it has a whole GPU to itself; a long one coarser, since every split costs a
partial result."""

from dataclasses import dataclass

import numpy as np
import triton
import triton.language as tl

SPLITS_AIM = 16
"""A request that is long enough has at least half as many splits, and more only where they are as long as they may be."""
_SPLITS_AIM = tl.constexpr(SPLITS_AIM)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """Splits of `least` positions, doubled for longer requests, up to `most`."""

    least: int
    most: int

    def __post_init__(self) -> None:
        assert self.most == self.least << self.doublings, (self.least, self.most)

    @property
    def doublings(self) -> int:
        return (self.most // self.least).bit_length() - 1

    def counts(self, ends: np.typing.NDArray[np.integer]) -> np.typing.NDArray[np.integer]:
        """How many splits requests of these lengths have."""
        size = np.full_like(ends, self.least)
        for _ in range(self.doublings):
            size = np.where(ends > size * SPLITS_AIM, 2 * size, size)
        return -(-ends // size)

    def count_max(self, length_max: int) -> int:
        """No request of up to so many positions has more."""
        return max(min(SPLITS_AIM, -(-length_max // self.least)), -(-length_max // self.most))


@triton.jit
def split_size(end, LEAST: tl.constexpr, DOUBLINGS: tl.constexpr):
    """Of requests that end there."""
    size = end * 0 + LEAST
    for _ in tl.static_range(DOUBLINGS):
        size = tl.where(end > size * _SPLITS_AIM, size * 2, size)
    return size
