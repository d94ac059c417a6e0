"""One random number for one drawn token, and nothing to carry along.

A draw depends on `(seed, position)` alone, so the same request draws the same tokens in any batch, on any worker, on any
device, before and after a move. Plain integers: no generator state exists that could be lost.
"""

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def mix(word: int) -> int:
    """A bijection of 64-bit words that spreads every input bit: the finaliser of SplitMix64 (Steele, Lea, Flood 2014)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1) with 53 random bits for the token drawn at absolute position `position` of its sequence.

    The seed is mixed before the position is added, so that neighbouring seeds do not walk the same sequence.
    """
    word = mix((mix((seed + _GAMMA) & _MASK) + position * _GAMMA) & _MASK)
    return (word >> 11) * 2.0**-53
