"""Blocks: given away in runs, found again by hash, evicted in order of use, retained on request, never in two places."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.ids import BlockHash, BlockId
from tercet.workers.block_pool import BlockPool


def make_pool(blocks: int, retained_max: int = 0) -> BlockPool:
    return BlockPool(blocks, np.zeros(blocks, dtype=np.uint64), retained_max)


def name(i: int) -> BlockHash:
    return BlockHash(i.to_bytes(32, "little"))


def cache(pool: BlockPool, *names: int) -> list[BlockId]:
    """Blocks registered under these names and released again."""
    blocks = pool.allocate(len(names))
    assert blocks is not None
    for block, i in zip(blocks, names, strict=True):
        pool.register(block, name(i))
    pool.release(blocks)
    return blocks


def test_allocate_gives_one_ascending_run() -> None:
    assert make_pool(8).allocate(5) == [0, 1, 2, 3, 4]


def test_allocate_takes_the_shortest_run_that_is_long_enough() -> None:
    pool = make_pool(12)
    pool.allocate(12)
    pool.release([BlockId(b) for b in (0, 1, 2, 3, 5, 6, 8, 9, 10)])
    assert pool.allocate(3) == [8, 9, 10]
    assert pool.allocate(2) == [5, 6]


def test_allocate_joins_the_longest_runs_when_no_run_is_long_enough() -> None:
    pool = make_pool(10)
    pool.allocate(10)
    pool.release([BlockId(b) for b in (0, 2, 3, 4, 6, 7)])
    assert pool.allocate(5) == [2, 3, 4, 6, 7]


def test_a_growing_table_goes_on_with_the_next_block() -> None:
    pool = make_pool(8)
    first = pool.allocate(2)
    assert first == [0, 1]
    assert pool.allocate(1, after=BlockId(4)) == [5]
    assert pool.allocate(1, after=BlockId(4)) == [2], "5 is taken: the first hole will do"
    assert pool.allocate(1, after=BlockId(7)) == [3], "7 is the last one"


def test_allocate_refuses_whole_or_not_at_all() -> None:
    pool = make_pool(3)
    assert pool.allocate(4) is None
    assert pool.free == 3
    assert pool.allocate(0) == []


def test_released_content_stays_findable_until_its_block_is_needed() -> None:
    pool = make_pool(4)
    blocks = cache(pool, 1, 2)
    assert pool.free == 4
    assert pool.lookup([name(1), name(2), name(3)]) == blocks
    pool.allocate(2)
    assert pool.lookup([name(1), name(2)]) == blocks, "vacant blocks were enough"
    pool.allocate(1)
    assert pool.lookup([name(1), name(2)]) == blocks[:1], "the end of a prefix goes first"


def test_eviction_takes_the_least_recently_used_block() -> None:
    pool = make_pool(3)
    cache(pool, 1)
    cache(pool, 2)
    cache(pool, 3)
    used = pool.lookup([name(1)])
    pool.share(used)
    pool.release(used)
    pool.allocate(2)
    assert [bool(pool.lookup([name(i)])) for i in (1, 2, 3)] == [True, False, False]


def test_shared_blocks_are_not_evicted_and_are_released_once_for_each_sharer() -> None:
    pool = make_pool(2)
    blocks = cache(pool, 1)
    pool.share(blocks)
    pool.share(blocks)
    assert pool.free == 1
    assert pool.allocate(2) is None
    pool.release(blocks)
    assert pool.free == 1
    pool.release(blocks)
    assert pool.free == 2
    with pytest.raises(AssertionError, match="referenced by nobody"):
        pool.release(blocks)


def test_the_first_block_under_a_name_keeps_it() -> None:
    pool = make_pool(4)
    first, second = pool.allocate(2) or []
    pool.register(first, name(1))
    pool.register(second, name(1))
    assert pool.lookup([name(1)]) == [first]
    pool.release([second])
    assert pool.lookup([name(1)]) == [first]
    pool.check_integrity({first: 1})


def test_the_generation_rises_with_new_content_and_with_nothing_else() -> None:
    pool = make_pool(1)
    block = cache(pool, 1)[0]
    assert pool.generations([block]) == (1,)
    pool.share([block])
    pool.release([block])
    assert pool.generations([block]) == (1,), "the content is still the same"
    pool.allocate(1)
    assert pool.generations([block]) == (2,)


def test_quarantined_blocks_are_given_to_nobody_until_the_transfer_has_ended() -> None:
    pool = make_pool(3)
    blocks = pool.allocate(2) or []
    pool.quarantine(blocks)
    assert (pool.free, pool.used, pool.quarantined) == (1, 0, 2)
    assert pool.allocate(2) is None
    pool.check_integrity({})
    pool.unquarantine(blocks)
    pool.unquarantine(blocks)
    assert (pool.free, pool.quarantined) == (3, 0)
    pool.check_integrity({})


def test_a_verified_or_shared_block_cannot_be_quarantined() -> None:
    pool = make_pool(2)
    blocks = cache(pool, 1)
    pool.share(blocks)
    with pytest.raises(AssertionError, match="verified"):
        pool.quarantine(blocks)
    pool.share(blocks)
    with pytest.raises(AssertionError, match="2 owners"):
        pool.quarantine(blocks)


def test_integrity_notices_a_lost_reference() -> None:
    pool = make_pool(2)
    pool.allocate(1)
    with pytest.raises(AssertionError, match="references"):
        pool.check_integrity({})


# ---- retention -------------------------------------------------------------------------------------------------------


def found(pool: BlockPool, *names: int) -> list[int]:
    """Which of these can be found."""
    return [i for i in names if pool.lookup([name(i)])]


def test_retained_blocks_are_evicted_after_all_others() -> None:
    pool = make_pool(4, retained_max=4)
    pool.retain("agent", cache(pool, 1, 2), ttl_s=10.0)
    cache(pool, 3, 4)
    pool.allocate(2)
    assert found(pool, 1, 2, 3, 4) == [1, 2], "though they were used before"
    assert pool.free == 2
    pool.allocate(1)
    assert found(pool, 1, 2) == [1], "a retention never stands in the way of an allocation"
    pool.allocate(1)
    assert pool.free == 0


def test_the_retention_that_would_end_first_gives_way_first_and_its_table_from_the_end() -> None:
    pool = make_pool(5, retained_max=5)
    pool.retain("late", cache(pool, 1, 2), ttl_s=20.0)
    pool.retain("soon", cache(pool, 3, 4), ttl_s=10.0)
    cache(pool, 5)
    for survivors in ([1, 2, 3, 4], [1, 2, 3], [1, 2], [1], []):
        pool.allocate(1)
        assert found(pool, 1, 2, 3, 4, 5) == survivors


def test_a_retention_ends_in_time_and_leaves_its_blocks_where_they_would_be() -> None:
    """1 was spared, so it goes next; 3 is still younger than 2."""
    pool = make_pool(3, retained_max=3)
    first = cache(pool, 1)
    cache(pool, 2)
    last = cache(pool, 3)
    pool.expire(100.0)
    pool.retain("first", first, ttl_s=5.0)
    pool.retain("last", last, ttl_s=5.0)
    pool.expire(104.9)
    assert (pool.retained, pool.free) == (2, 3)
    blocks = pool.allocate(1) or []
    assert found(pool, 1, 2, 3) == [1, 3]
    pool.release(blocks)
    cache(pool, 4)
    pool.expire(105.0)
    assert pool.retained == 0
    for survivors in ([3, 4], [4], []):
        pool.allocate(1)
        assert found(pool, 1, 3, 4) == survivors


def test_a_new_retention_of_the_same_name_replaces_the_old_one() -> None:
    pool = make_pool(4, retained_max=4)
    old = cache(pool, 1, 2)
    pool.retain("agent", old, ttl_s=10.0)
    pool.retain("agent", [*old[:1], *cache(pool, 3)], ttl_s=20.0)
    assert pool.retained == 2
    pool.dismiss("agent")
    pool.dismiss("agent")
    assert pool.retained == 0
    pool.check_integrity({})


def test_a_block_that_several_wait_for_is_kept_for_the_last_of_them() -> None:
    pool = make_pool(3, retained_max=3)
    system, one, other = cache(pool, 1, 2, 3)
    pool.retain("one", [system, one], ttl_s=5.0)
    pool.retain("other", [system, other], ttl_s=9.0)
    pool.expire(5.0)
    pool.allocate(1)
    assert found(pool, 1, 2, 3) == [1, 3]
    pool.check_integrity({one: 1})


def test_no_more_than_the_bound_is_retained_and_who_came_first_keeps_it() -> None:
    pool = make_pool(6, retained_max=3)
    pool.retain("first", cache(pool, 1, 2), ttl_s=1.0)
    pool.retain("second", cache(pool, 3, 4), ttl_s=99.0)
    pool.retain("third", cache(pool, 5), ttl_s=99.0)
    assert pool.retained == 3
    pool.allocate(3)
    assert found(pool, 1, 2, 3, 4, 5) == [1, 2, 3], "of the second the beginning, which is of use"
    pool.check_integrity(dict.fromkeys((BlockId(b) for b in (3, 4, 5)), 1))


def test_without_a_bound_for_it_nothing_is_retained() -> None:
    pool = make_pool(2)
    pool.retain("agent", cache(pool, 1), ttl_s=9.0)
    assert pool.retained == 0


def test_a_retained_block_may_be_used_and_is_retained_again_when_it_is_released() -> None:
    pool = make_pool(3, retained_max=1)
    blocks = cache(pool, 1)
    pool.retain("agent", blocks, ttl_s=9.0)
    cache(pool, 2, 3)
    pool.release(pool.allocate(2) or [])
    pool.share(blocks)
    pool.check_integrity({blocks[0]: 1})
    assert pool.allocate(3) is None
    pool.release(blocks)
    cache(pool, 4, 5)
    pool.allocate(2)
    assert found(pool, 1, 4, 5) == [1]


Action = tuple[str, int]
KINDS = [
    "allocate",
    "release",
    "share",
    "quarantine",
    "unquarantine",
    "retain",
    "dismiss",
    "expire",
]
actions = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=60)


@settings(max_examples=150, deadline=None)
@given(actions)
def test_whatever_happens_every_block_is_in_one_place_and_comes_back(history: list[Action]) -> None:
    pool, now_s = make_pool(7, retained_max=3), 0.0
    tables: list[list[BlockId]] = []
    captive: list[BlockId] = []
    for action, n in history:
        if action == "allocate":
            free_before = pool.free
            blocks = pool.allocate(n)
            assert (blocks is None) == (n > free_before)
            if blocks:
                assert blocks == sorted(set(blocks))
                for i, block in enumerate(blocks[: n // 2]):
                    pool.register(block, name(i))
                tables.append(blocks)
        elif action == "release" and tables:
            pool.release(tables.pop(n % len(tables)))
        elif action == "share":
            found = pool.lookup([name(i) for i in range(n)])
            pool.share(found)
            tables.append(found)
        elif action == "quarantine" and tables:
            table = tables.pop(n % len(tables))
            doubtful = [
                b for b in table if not any(pool.lookup([name(i)]) == [b] for i in range(9))
            ]
            pool.quarantine(doubtful)
            pool.release([b for b in table if b not in doubtful])
            captive.extend(doubtful)
        elif action == "unquarantine":
            pool.unquarantine(captive)
            captive.clear()
        elif action == "retain":
            pool.retain(str(n % 3), pool.lookup([name(i) for i in range(n)]), ttl_s=n / 2)
        elif action == "dismiss":
            pool.dismiss(str(n % 3))
        elif action == "expire":
            now_s += n / 4
            pool.expire(now_s)
        assert pool.retained <= 3
        references: dict[BlockId, int] = {}
        for table in tables:
            for block in table:
                references[block] = references.get(block, 0) + 1
        pool.check_integrity(references)
    for table in tables:
        pool.release(table)
    pool.unquarantine(captive)
    assert (pool.free, pool.used, pool.quarantined) == (7, 0, 0)


# ---- pins ------------------------------------------------------------------------------------------------------------


def test_a_pinned_block_is_passed_and_keeps_its_turn() -> None:
    pool = make_pool(3)
    pinned = cache(pool, 1)
    cache(pool, 2, 3)
    pool.pin(pinned)
    assert pool.free == 2
    assert pool.allocate(3) is None
    pool.allocate(1)
    assert found(pool, 1, 2, 3) == [1, 2]
    pool.unpin(pinned)
    pool.allocate(1)
    assert found(pool, 1, 2, 3) == [2]


def test_a_pinned_block_can_be_shared_and_is_then_as_young_as_any() -> None:
    pool = make_pool(2)
    pinned = cache(pool, 1)
    cache(pool, 2)
    pool.pin(pinned)
    pool.share(pinned)
    assert pool.free == 1
    pool.unpin(pinned)
    assert pool.free == 1
    pool.release(pinned)
    pool.allocate(1)
    assert found(pool, 1, 2) == [1]
    pool.check_integrity({BlockId(1): 1})


def test_a_pinned_block_outlives_its_retention() -> None:
    pool = make_pool(3, retained_max=3)
    pinned = cache(pool, 1)
    pool.retain("pinned", pinned, ttl_s=1.0)
    pool.retain("other", cache(pool, 2, 3), ttl_s=2.0)
    pool.pin(pinned)
    pool.allocate(2)
    assert (found(pool, 1, 2, 3), pool.free) == ([1], 0)
    pool.unpin(pinned)
    assert pool.free == 1
