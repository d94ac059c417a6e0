"""Which block of host memory holds the KV of which hash, and which of them may be given away.

A host block is in exactly one of four places:

    vacant     no content
    arriving   a copy writes into it; known by its hash, and not findable yet
    resting    findable; may be given away, least recently used first
    lent       findable; copies read it, so it stays

Knows numbers and hashes, never memory.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NewType

from tercet.ids import BlockHash

HostBlock = NewType("HostBlock", int)
"""A block's number in host memory."""


class HostPool:
    """`blocks` of them; the same hash is never there twice."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._vacant = [HostBlock(block) for block in reversed(range(blocks))]
        self._arriving: dict[BlockHash, HostBlock] = {}
        self._resting: OrderedDict[BlockHash, HostBlock] = OrderedDict()
        self._lent: dict[BlockHash, HostBlock] = {}
        self._readers: dict[BlockHash, int] = {}

    def __contains__(self, name: BlockHash) -> bool:
        """Whether its content is here or on its way."""
        return name in self._resting or name in self._lent or name in self._arriving

    @property
    def used(self) -> int:
        """Blocks with content, that on its way included."""
        return self.blocks - len(self._vacant)

    @property
    def room(self) -> int:
        """Blocks that `expect` can give."""
        return len(self._vacant) + len(self._resting)

    def findable(self, name: BlockHash) -> bool:
        """Whether its content is here."""
        return name in self._resting or name in self._lent

    def touch(self, name: BlockHash) -> None:
        """It was used, wherever: it is given away after all others. One that is not at rest is ignored."""
        if name in self._resting:
            self._resting.move_to_end(name)

    def expect(self, names: Sequence[BlockHash]) -> list[HostBlock]:
        """Blocks for these new names, of which there is `room` for all; ascending, so that neighbours stay neighbours."""
        vacant, resting = self._vacant, self._resting
        assert len(names) <= self.room, f"{len(names)} names, room for {self.room}"
        blocks: list[HostBlock] = []
        while len(blocks) < len(names):
            blocks.append(vacant.pop() if vacant else resting.popitem(last=False)[1])
        blocks.sort()
        for name, block in zip(names, blocks, strict=True):
            assert name not in self, f"{name!r} is here already"
            self._arriving[name] = block
        return blocks

    def arrived(self, names: Iterable[BlockHash]) -> None:
        """What was expected under these names is here."""
        for name in names:
            self._resting[name] = self._arriving.pop(name)

    def lend(self, names: Sequence[BlockHash]) -> list[HostBlock]:
        """The blocks of these findable names, which stay as long as they are read."""
        for name in names:
            if name in self._resting:
                self._lent[name] = self._resting.pop(name)
            self._readers[name] = self._readers.get(name, 0) + 1
        return [self._lent[name] for name in names]

    def give_back(self, names: Iterable[BlockHash]) -> None:
        """One reader less of each."""
        for name in names:
            self._readers[name] -= 1
            if not self._readers[name]:
                del self._readers[name]
                self._resting[name] = self._lent.pop(name)

    def check_integrity(
        self, arriving: Iterable[BlockHash], readers: Mapping[BlockHash, int]
    ) -> None:
        """Every block is in exactly one place; `arriving` and `readers` are the truth."""
        assert self._arriving.keys() == set(arriving), f"{self._arriving=} {arriving=}"
        assert self._readers == dict(readers), f"{self._readers=} {readers=}"
        assert self._lent.keys() == self._readers.keys()
        places = (self._arriving, self._resting, self._lent)
        names = [name for place in places for name in place]
        assert len(names) == len(set(names)), "a name is in two places"
        blocks = self._vacant + [block for place in places for block in place.values()]
        assert sorted(blocks) == list(range(self.blocks)), f"blocks are lost or twice: {blocks}"
