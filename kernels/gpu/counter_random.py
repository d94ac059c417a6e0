"""Random words without a generator: each is computed from `(seed, position)`, in integers, the same on every device.

Legend: R rows. SplitMix64's finaliser (Steele, Lea, Flood 2014), twice. The twin is `random_words_twin`.
"""

import torch
import triton
import triton.language as tl

GAMMA = 0x9E3779B97F4A7C15
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB

_GAMMA, _FIRST, _SECOND = tl.constexpr(GAMMA), tl.constexpr(FIRST), tl.constexpr(SECOND)


@triton.jit
def mix(word):
    word = (word ^ (word >> 30)) * _FIRST
    word = (word ^ (word >> 27)) * _SECOND
    return word ^ (word >> 31)


@triton.jit
def random_word(seed, position):
    """64 random bits for the token at `position`; both are int64."""
    seed, position = seed.to(tl.uint64, bitcast=True), position.to(tl.uint64, bitcast=True)
    return mix(mix(seed + _GAMMA) + position * _GAMMA)


def random_words_twin(seed_R: torch.Tensor, position_R: torch.Tensor) -> torch.Tensor:
    """The twin. int64, like its arguments; products wrap."""
    return _mix(_mix(seed_R + _signed(GAMMA)) + position_R * _signed(GAMMA))


def _mix(word: torch.Tensor) -> torch.Tensor:
    word = (word ^ _shifted(word, 30)) * _signed(FIRST)
    word = (word ^ _shifted(word, 27)) * _signed(SECOND)
    return word ^ _shifted(word, 31)


def _shifted(word: torch.Tensor, bits: int) -> torch.Tensor:
    """To the right, with zeros coming in."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word
