"""Short names for the prefixes of a prompt, by which the front door remembers who has seen them and places them on rings.

KV is shared by `tercet.blocks` hashes alone, which nobody can forge. Here a collision costs a worse choice of worker and
nothing else, so 64 bits and one vectorised pass are enough: about 2 ns a token once they are numbers and no Python objects,
which takes 4 ns. Names depend on nothing but tokens and domain, so every front door finds the same name for the same prefix.
"""

from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from tercet.blocks import HashDomain

PrefixName = NewType("PrefixName", int)
"""Stands for all tokens of a prompt up to the end of one full block: 64 bits."""

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

_ONE = np.uint64(1)
_POSITIONS_MIN = 4096


def mix(value: int) -> int:
    """A well-spread 64-bit function of 64 bits, one to one: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    value = (value + _STEP) & _MASK
    value = ((value ^ (value >> 30)) * _MIX[0]) & _MASK
    value = ((value ^ (value >> 27)) * _MIX[1]) & _MASK
    return value ^ (value >> 31)


@lru_cache(maxsize=1024)
def root_of(domain: HashDomain) -> PrefixName:
    """The name of the empty prefix: different in domains that must not share."""
    return PrefixName(int.from_bytes(domain.root()[:8], "little"))


def numbers_of(tokens: Sequence[int]) -> "array[int]":
    """Token ids as 32-bit numbers; raises OverflowError for one that does not fit.

    It takes longer than all that is done with them afterwards, so it is done once for a prompt.
    """
    numbers = array("I")
    # `array("I", list)` takes half as long again.
    numbers.fromlist(tokens if isinstance(tokens, list) else list(tokens))
    return numbers


def prefix_names(
    tokens: "Sequence[int] | array[int]", block_tokens: int, parent: PrefixName, position: int = 0
) -> "array[int]":
    """The names at the ends of all full blocks of `tokens`, which follow the prefix `parent` of `position` tokens.

    Each position has a random odd factor, and a name is the sum of its tokens times these (multilinear hashing), so names
    grow by one cumulative sum. `tokens` are best given as `numbers_of` has made them.
    """
    names = array("Q")
    blocks = len(tokens) // block_tokens
    if blocks:
        whole = blocks * block_tokens
        numbers = tokens if isinstance(tokens, array) else numbers_of(tokens[:whole])
        values = np.frombuffer(numbers, dtype=np.uint32, count=whole).astype(np.uint64)
        values += _ONE
        shape = blocks, block_tokens
        sums = np.vecdot(values.reshape(shape), _multipliers(position, whole).reshape(shape))
        sums[:1] += np.uint64(parent)  # of an array, so that it wraps around in silence
        names.frombytes(sums.cumsum(out=sums).tobytes())
    return names


def _multipliers(position: int, count: int) -> NDArray[np.uint64]:
    """One odd random number for each of `count` positions."""
    end = position + count
    size = max(_POSITIONS_MIN, 1 << (end - 1).bit_length())
    return _table(size)[position:end]


@lru_cache(maxsize=2)
def _table(size: int) -> NDArray[np.uint64]:
    """The first `size` numbers of SplitMix64, made odd; 8 bytes a position of the longest prompt seen."""
    value = np.arange(size, dtype=np.uint64) + np.uint64(1)
    value *= np.uint64(_STEP)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(_MIX[0])
    value = (value ^ (value >> np.uint64(27))) * np.uint64(_MIX[1])
    return (value ^ (value >> np.uint64(31))) | np.uint64(1)
