"""Promises to keep cached blocks for a while: which blocks, for whom, until when.

A conversation that waits for a tool will want its KV again soon, but to the prefix cache it looks like any other that has
ended. A retention covers the blocks of one such turn; several may cover the same block, and it is kept as long as any does.
Knows no pool and reads no clock: times are its caller's.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tercet.ids import BlockId


@dataclass(frozen=True, slots=True)
class Retention:
    """One turn's blocks, in the order of its table."""

    until_s: float
    blocks: tuple[BlockId, ...]


class Retentions:
    """At most `blocks_max` different blocks are covered, by at most as many retentions. First come, first kept: were the
    newest preferred, more conversations than there is room for would all lose their blocks before they come back."""

    def __init__(self, blocks_max: int) -> None:
        self._blocks_max = blocks_max
        self._kept: dict[str, Retention] = {}
        self._covers: dict[BlockId, int] = {}
        """How many retentions cover a block."""
        self._soonest_s = math.inf
        """No retention ends before this."""

    def __contains__(self, block: BlockId) -> bool:
        return block in self._covers

    def __len__(self) -> int:
        """Different blocks that are covered."""
        return len(self._covers)

    def add(self, name: str, blocks: Iterable[BlockId], until_s: float) -> Sequence[BlockId]:
        """Cover the first of `blocks`, as many as there is room for; returns these. The name must be free."""
        assert name not in self._kept, f"{name} is retained already"
        covered: list[BlockId] = []
        for block in blocks if len(self._kept) < self._blocks_max else ():
            if block not in self._covers and len(self._covers) == self._blocks_max:
                break
            self._covers[block] = self._covers.get(block, 0) + 1
            covered.append(block)
        if covered:
            self._kept[name] = Retention(until_s, tuple(covered))
            self._soonest_s = min(self._soonest_s, until_s)
        return covered

    def remove(self, name: str) -> list[BlockId]:
        """End a retention, if there is one; returns the blocks that none covers any more, in the order of their table."""
        retention = self._kept.pop(name, None)
        uncovered: list[BlockId] = []
        for block in retention.blocks if retention else ():
            self._covers[block] -= 1
            if not self._covers[block]:
                del self._covers[block]
                uncovered.append(block)
        return uncovered

    def oldest(self) -> str:
        """The one that ends first, of at least one."""
        return min(self._kept, key=lambda name: self._kept[name].until_s)

    def expired(self, now_s: float) -> list[str]:
        """Those that end by now, the oldest first. Costs nothing until the first one may."""
        if now_s < self._soonest_s:
            return []
        over = [name for name, each in self._kept.items() if each.until_s <= now_s]
        later_s = [each.until_s for each in self._kept.values() if each.until_s > now_s]
        self._soonest_s = min(later_s, default=math.inf)
        return sorted(over, key=lambda name: self._kept[name].until_s)

    def check_integrity(self) -> None:
        """The counts are right, and so are the bounds."""
        covers: dict[BlockId, int] = {}
        for retention in self._kept.values():
            for block in retention.blocks:
                covers[block] = covers.get(block, 0) + 1
        assert covers == self._covers, f"covers are {self._covers}, should be {covers}"
        assert len(self._covers) <= self._blocks_max, "too much is retained"
        assert all(each.until_s >= self._soonest_s for each in self._kept.values()), self._soonest_s
