"""What is saved and fetched, when, and for whom: stories, and any order of events with copies that are over at any time.

Blocks have contents here: whoever gets a block scribbles over it, and a copy moves what is there when it is carried out.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tercet.ids import FIRST_EPOCH, BlockHash, BlockId, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.block_pool import BlockPool
from tercet.workers.host_tier import Copies, Direction, HostBlock, HostTier
from tercet.workers.sequence import Sequence

SCRIBBLE = BlockHash(b"scribble")


def chain(number: int, length: int) -> list[BlockHash]:
    """The hashes of a prompt's blocks."""
    return [BlockHash(f"{number}.{i}".encode()) for i in range(length)]


def request() -> Sequence:
    return Sequence(RequestSpec(RequestId("r"), [1], Sampling()), FIRST_EPOCH, "f", 0, [1])


@dataclass
class Memory:
    """A device with a tier, and the contents of both."""

    blocks: int = 8
    host_blocks: int = 16
    fetch_tokens: int = 64
    """Of a block: as many as a fetch must have at least, so that every block is worth it."""
    device: dict[BlockId, BlockHash] = field(default_factory=dict)
    host: dict[HostBlock, BlockHash] = field(default_factory=dict)
    under_way: list[Copies] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pool = BlockPool(self.blocks, np.zeros(self.blocks, dtype=np.uint64))
        self.tier = HostTier(self.pool, self.host_blocks, self.fetch_tokens, block_bytes=100)

    def compute(self, names: list[BlockHash]) -> list[BlockId] | None:
        """A table for a prompt, of what is cached and what is computed now."""
        cached = self.pool.lookup(names)
        self.pool.share(cached)
        fresh = self.pool.allocate(len(names) - len(cached))
        if fresh is None:
            self.pool.release(cached)
            return None
        self.device |= dict.fromkeys(fresh, SCRIBBLE)
        table = cached + fresh
        for block, name in zip(table, names, strict=True):
            self.device[block] = name
            self.pool.register(block, name)
        return table

    def visit(self, number: int, length: int) -> None:
        """A prompt is computed, and ends."""
        table = self.compute(chain(number, length))
        assert table is not None
        self.pool.release(table)

    def begin(self) -> None:
        for copies in self.tier.orders():
            self.under_way.append(copies)
            if copies.direction is Direction.FETCH:
                self.device |= dict.fromkeys(copies.blocks, SCRIBBLE)

    def land(self, index: int = 0) -> None:
        """One order is carried out only now, and is over."""
        copies = self.under_way.pop(index)
        for block, slot in zip(copies.blocks, copies.slots, strict=True):
            if copies.direction is Direction.SAVE:
                self.host[slot] = self.device[block]
            else:
                self.device[block] = self.host[slot]
        self.tier.landed([copies.number])

    def settle(self) -> None:
        """Everything that is to be copied has been."""
        self.begin()
        while self.under_way:
            self.land()
            self.begin()

    def fetch(self, names: list[BlockHash]) -> Sequence:
        waiting = request()
        cached = len(self.pool.lookup(names))
        assert self.tier.lacks(names, cached)
        self.tier.fetch(waiting, names, cached)
        return waiting

    def check(self) -> None:
        for name in self.pool.hashes:
            block = self.pool.find(name)
            assert block is not None
            assert self.device[block] == name, f"{block=} holds {self.device[block]!r}"
        self.tier.check_integrity()


def test_what_the_device_gives_away_comes_back() -> None:
    memory = Memory()
    memory.visit(1, 5)
    memory.settle()
    memory.visit(2, 8)
    names = chain(1, 5)
    assert memory.pool.lookup(names) == []
    assert memory.tier.reach(names, 0) == 5
    memory.settle()
    waiting = memory.fetch(names)
    assert waiting.fetching
    assert memory.pool.lookup(names) == [], "found before it is there"
    memory.settle()
    assert not waiting.fetching
    assert len(memory.pool.lookup(names)) == 5
    memory.check()


def test_nothing_is_saved_twice() -> None:
    memory = Memory()
    for _ in range(3):
        memory.visit(1, 5)
        memory.visit(2, 5)
        memory.settle()
    memory.visit(3, 8)
    memory.settle()
    memory.fetch(chain(1, 5))
    memory.settle()
    memory.visit(1, 5)
    memory.settle()
    assert memory.tier.figures().saved_blocks == 18


def test_only_what_the_device_lacks_is_fetched() -> None:
    memory = Memory()
    memory.visit(1, 6)
    memory.settle()
    memory.visit(2, 4)  # takes the two vacant blocks, and the last two of the first prompt
    memory.settle()
    assert len(memory.pool.lookup(chain(1, 6))) == 4
    memory.fetch(chain(1, 6))
    memory.settle()
    assert len(memory.pool.lookup(chain(1, 6))) == 6
    assert memory.tier.figures().fetched_blocks == 2
    memory.check()


def test_a_little_is_computed_rather_than_fetched() -> None:
    memory = Memory(fetch_tokens=16)  # four blocks make a fetch
    memory.visit(1, 8)
    memory.settle()
    memory.visit(2, 3)
    memory.settle()
    assert memory.tier.reach(chain(1, 8), 5) == 8
    assert memory.tier.lacks(chain(1, 8), 5) == 0
    memory.visit(2, 4)
    assert memory.tier.lacks(chain(1, 8), 4) == 4


def test_what_is_being_saved_is_not_given_away() -> None:
    memory = Memory()
    memory.visit(1, 8)
    memory.begin()
    assert memory.pool.free == 4, "at most half of it is on its way"
    assert memory.compute(chain(2, 5)) is None
    memory.land()
    assert memory.pool.free == 8
    memory.check()


def test_what_is_being_saved_can_be_shared() -> None:
    memory = Memory()
    memory.visit(1, 8)
    memory.begin()
    table = memory.compute(chain(1, 8))
    assert table is not None
    memory.land()
    assert memory.pool.free == 0
    memory.pool.release(table)
    assert memory.pool.free == 8
    memory.check()


def test_saving_changes_nobodys_turn() -> None:
    memory = Memory()
    memory.visit(1, 4)
    memory.visit(2, 4)
    memory.settle()
    memory.visit(3, 4)
    assert memory.pool.lookup(chain(1, 4)) == []
    assert len(memory.pool.lookup(chain(2, 4))) == 4


def test_a_small_tier_saves_what_would_be_evicted_next() -> None:
    memory = Memory(blocks=8, host_blocks=4)
    memory.visit(1, 2)
    memory.settle()
    assert memory.tier.figures().saved_blocks == 0, "six blocks are vacant"
    memory.visit(2, 6)
    memory.settle()
    assert memory.tier.figures().saved_blocks == 2
    assert memory.tier.figures().blocks_used == 2
    memory.visit(3, 2)
    assert memory.tier.reach(chain(1, 2), 0) == 2


def test_hits_are_counted_where_they_came_from() -> None:
    memory = Memory()
    memory.visit(1, 5)
    memory.settle()
    memory.visit(2, 8)
    memory.settle()
    waiting = memory.fetch(chain(1, 5))
    memory.settle()
    memory.tier.took(waiting, 5)
    memory.tier.took(waiting, 5)  # it gave way, and came back
    figures = memory.tier.figures()
    assert (figures.host_hit_tokens, figures.device_hit_tokens) == (5 * 64, 5 * 64)
    assert (figures.saved_bytes, figures.fetched_bytes) == (1300, 500)


class TierMachine(RuleBasedStateMachine):
    """Prompts that share prefixes come, stay and go; copies are over in any order, whenever it pleases."""

    @initialize(blocks=st.integers(4, 12), host_blocks=st.integers(1, 16))
    def make(self, blocks: int, host_blocks: int) -> None:
        self.memory = Memory(blocks, host_blocks)
        self.tables: list[list[BlockId]] = []
        self.waiting: list[Sequence] = []

    @rule(number=st.integers(0, 3), length=st.integers(1, 5))
    def compute(self, number: int, length: int) -> None:
        table = self.memory.compute(chain(number, length))
        if table is not None:
            self.tables.append(table)

    @precondition(lambda self: self.tables)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.tables) - 1))
        self.memory.pool.release(self.tables.pop(index))

    @rule(number=st.integers(0, 3), length=st.integers(1, 5))
    def fetch(self, number: int, length: int) -> None:
        names, pool, tier = chain(number, length), self.memory.pool, self.memory.tier
        cached = pool.lookup(names)
        pool.share(cached)
        room = len(names) - len(cached) <= pool.free
        pool.release(cached)
        if room and tier.lacks(names, len(cached)):
            self.waiting.append(self.memory.fetch(names))

    @rule()
    def begin(self) -> None:
        self.memory.begin()

    @precondition(lambda self: self.memory.under_way)
    @rule(data=st.data())
    def land(self, data: st.DataObject) -> None:
        self.memory.land(data.draw(st.integers(0, len(self.memory.under_way) - 1)))

    @invariant()
    def contents_and_books_are_right(self) -> None:
        if not hasattr(self, "memory"):
            return
        self.memory.check()
        references = dict(self.memory.tier.references())
        for table in self.tables:
            for block in table:
                references[block] = references.get(block, 0) + 1
        self.memory.pool.check_integrity(references)

    def teardown(self) -> None:
        if not hasattr(self, "memory"):
            return
        for table in self.tables:
            self.memory.pool.release(table)
        self.memory.settle()
        self.memory.check()
        assert self.memory.pool.used == 0
        assert self.memory.tier.under_way == 0
        assert not any(waiting.fetching for waiting in self.waiting)


TestHostTier = TierMachine.TestCase
TestHostTier.settings = settings(max_examples=100, stateful_step_count=30)
