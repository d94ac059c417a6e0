"""The books of host memory: what is found there, what is given away, and that nothing is lost on the way."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tercet.ids import BlockHash
from tercet.workers.host_tier import HostPool


def name(number: int) -> BlockHash:
    return BlockHash(number.to_bytes(4, "big"))


def store(pool: HostPool, *numbers: int) -> None:
    names = [name(number) for number in numbers]
    pool.expect(names)
    pool.arrived(names)


def test_what_is_on_its_way_is_known_but_not_found() -> None:
    pool = HostPool(2)
    pool.expect([name(1)])
    assert name(1) in pool
    assert not pool.findable(name(1))
    pool.arrived([name(1)])
    assert pool.findable(name(1))


def test_the_least_recently_used_is_given_away() -> None:
    pool = HostPool(3)
    store(pool, 1, 2, 3)
    pool.touch(name(1))
    store(pool, 4)
    assert [n for n in range(1, 5) if pool.findable(name(n))] == [1, 3, 4]


def test_what_is_read_stays() -> None:
    pool = HostPool(2)
    store(pool, 1, 2)
    pool.lend([name(1)])
    assert pool.room == 1
    store(pool, 3)
    assert [n for n in range(1, 4) if pool.findable(name(n))] == [1, 3]
    pool.give_back([name(1)])
    assert pool.room == 2


def test_neighbours_stay_neighbours() -> None:
    pool = HostPool(8)
    assert pool.expect([name(n) for n in range(8)]) == list(range(8))


def test_more_than_there_is_room_for_is_a_bug() -> None:
    pool = HostPool(1)
    pool.expect([name(1)])
    with pytest.raises(AssertionError, match="room for 0"):
        pool.expect([name(2)])


NAMES = st.integers(0, 11).map(name)


class HostPoolMachine(RuleBasedStateMachine):
    """Any order of calls that its rules allow, against what a reader of its docstring would expect."""

    @initialize(blocks=st.integers(1, 8))
    def make(self, blocks: int) -> None:
        self.pool = HostPool(blocks)
        self.resting: list[BlockHash] = []
        """Least recently used first."""
        self.arriving: set[BlockHash] = set()
        self.readers: dict[BlockHash, int] = {}

    @rule(names=st.lists(NAMES, unique=True, max_size=4))
    def expect(self, names: list[BlockHash]) -> None:
        fresh = [n for n in names if n not in self.pool][: self.pool.room]
        lost = len(fresh) - (self.pool.blocks - self.pool.used)
        self.resting = self.resting[max(lost, 0) :]
        assert len(self.pool.expect(fresh)) == len(fresh)
        self.arriving |= set(fresh)

    @precondition(lambda self: self.arriving)
    @rule(data=st.data())
    def arrive(self, data: st.DataObject) -> None:
        found = data.draw(st.sampled_from(sorted(self.arriving)))
        self.pool.arrived([found])
        self.arriving.remove(found)
        self.resting.append(found)

    @precondition(lambda self: self.resting or self.readers)
    @rule(data=st.data())
    def lend(self, data: st.DataObject) -> None:
        wanted = data.draw(st.sampled_from(sorted({*self.resting, *self.readers})))
        assert len(self.pool.lend([wanted])) == 1
        self.resting = [n for n in self.resting if n != wanted]
        self.readers[wanted] = self.readers.get(wanted, 0) + 1

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        read = data.draw(st.sampled_from(sorted(self.readers)))
        self.pool.give_back([read])
        self.readers[read] -= 1
        if not self.readers[read]:
            del self.readers[read]
            self.resting.append(read)

    @rule(touched=NAMES)
    def touch(self, touched: BlockHash) -> None:
        self.pool.touch(touched)
        if touched in self.resting:
            self.resting.remove(touched)
            self.resting.append(touched)

    @invariant()
    def books_are_right(self) -> None:
        if not hasattr(self, "pool"):
            return
        self.pool.check_integrity(self.arriving, self.readers)
        assert {n for n in map(name, range(12)) if self.pool.findable(n)} == {
            *self.resting,
            *self.readers,
        }
        assert self.pool.used == len(self.resting) + len(self.readers) + len(self.arriving)


TestHostPool = HostPoolMachine.TestCase
