"""Names for prompts of which only identity is known: 64 bits each, spread like those the front door computes from tokens.

Every source of ids (a file, a conversation, a generator's client) has a salt of its own, so traces can be replayed together
and never share by accident.
"""

from collections.abc import Iterable
from hashlib import blake2b

from tercet.router.prefix_names import mix

REQUEST_BLOCKS_MAX = 1 << 20
"""Blocks of one prompt: 64 Mi tokens in blocks of 64."""


def salt_of(*parts: object) -> int:
    """64 bits that stand for the parts."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def named(salt: int, ids: Iterable[int]) -> tuple[int, ...]:
    """The names of blocks whose ids already determine all that precedes them."""
    return tuple([mix(salt + id) for id in ids])


def private_names(salt: int, request: int, start: int, end: int) -> tuple[int, ...]:
    """The names of blocks `start` to `end` of the `request`-th prompt, which nobody else has."""
    assert end <= REQUEST_BLOCKS_MAX, f"a prompt of {end} blocks"
    first = salt + request * REQUEST_BLOCKS_MAX
    return named(first, range(start, end))
