"""Names for prompts of which only identity is known: 64 bits each, spread like those the front door computes from tokens.

Every source of ids (a file, a conversation, a generator's client) has a salt of its own, so traces can be replayed together
and never share by accident.
"""

from collections.abc import Iterable
from hashlib import blake2b

from tercet.router.prefix_names import mix

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # Weyl's sequence with the golden ratio: as even as mixing each, at a quarter of the time


def salt_of(*parts: object) -> int:
    """64 bits that stand for the parts."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def named(salt: int, ids: Iterable[int]) -> tuple[int, ...]:
    """The names of blocks whose ids already determine all that precedes them."""
    return tuple([mix(salt + id) for id in ids])


def stream_names(salt: int, stream: int, start: int, end: int) -> tuple[int, ...]:
    """The names of blocks `start` to `end` of the `stream`-th stream of tokens: a prompt, or a context that grows."""
    first = mix(salt + stream)
    return tuple([(first + place * _STEP) & _MASK for place in range(start, end)])
