"""What other front doors have sent to the workers, as the workers pass it on: who has probably seen which prefix.

One name a granule: to tell of 8,192 tokens takes 128 bytes, and to remember that a thirtieth of the time that 512 blocks
take, which matters because everybody learns of everybody's requests. Like the prefix index it forgets the least recent first
and hears of no eviction; an error, or a word that was lost, costs a worse choice.
"""

import struct
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

from tercet.router.ledger import Life
from tercet.router.prefix_index import PrefixIndex
from tercet.router.prefix_names import PrefixName
from tercet.wire import NAME_BYTES

GRANULE_TOKENS = 512
"""Told is the name at each end of so many tokens. A hit is too short by less than that; DualMap's keys are as long."""
TOLD_MAX = 256
"""Names that are told of one prompt: its first 131,072 tokens."""


class Hearsay:
    """Takes the names of all blocks of a prompt and counts in blocks, as a `PrefixIndex` does."""

    def __init__(self, names_max: int, block_tokens: int) -> None:
        self._index = PrefixIndex(names_max)
        self._blocks = max(1, GRANULE_TOKENS // block_tokens)

    def __len__(self) -> int:
        return len(self._index)

    def told(self, names: Sequence[PrefixName]) -> bytes:
        """What others should hear of a prompt."""
        granules = self._granules(names)[:TOLD_MAX]
        return struct.pack(f"<{len(granules)}Q", *granules)

    def learn(self, life: Life, told: bytes) -> None:
        """Prompts were sent to `life`, of which others told this."""
        count = len(told) // NAME_BYTES
        names = struct.unpack_from(f"<{count}Q", told)
        self._index.record(life, [PrefixName(name) for name in names])

    def hit(self, life: Life, names: Sequence[PrefixName]) -> int:
        if not len(self._index):  # a single front door hears nothing
            return 0
        return self._index.hit(life, self._granules(names)) * self._blocks

    def hits(self, names: Sequence[PrefixName]) -> dict[Life, int]:
        granules = self._index.hits(self._granules(names))
        return {life: depth * self._blocks for life, depth in granules.items()}

    def nearest(self, names: Sequence[PrefixName], beyond: int = 0) -> Iterator[Life]:
        return self._index.nearest(self._granules(names), beyond // self._blocks)

    def keep_only(self, lives: AbstractSet[Life]) -> None:
        self._index.keep_only(lives)

    def _granules(self, names: Sequence[PrefixName]) -> Sequence[PrefixName]:
        return names[self._blocks - 1 :: self._blocks] if self._blocks > 1 else names
