"""Two hashes, two workers; who comes or goes moves no more than its own share."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.ids import WorkerId
from tercet.router.dualmap.ring import Ring
from tercet.router.prefix_names import mix

KEYS = [mix(number) for number in range(4000)]
seats = st.frozensets(st.integers(0, 40).map(lambda seat: WorkerId(f"prefill-{seat}")), max_size=12)


def ring_of(members: frozenset[WorkerId], points: int = 128) -> Ring:
    ring = Ring(points)
    ring.sync(members)
    return ring


def workers(count: int) -> frozenset[WorkerId]:
    return frozenset(WorkerId(f"prefill-{number}") for number in range(count))


@given(seats, st.integers(0, 2**64 - 1))
def test_a_key_has_two_different_workers_or_as_many_as_there_are(
    members: frozenset[WorkerId], key: int
) -> None:
    pair = ring_of(members, points=4).pair(key)
    assert len(set(pair)) == len(pair) == min(2, len(members))
    assert set(pair) <= members


@given(st.lists(seats, min_size=1, max_size=5), st.integers(0, 2**64 - 1))
def test_the_ring_depends_on_its_members_and_not_on_their_history(
    history: list[frozenset[WorkerId]], key: int
) -> None:
    grown = Ring(8)
    for members in history:
        grown.sync(members)
    fresh = ring_of(history[-1], points=8)
    assert len(grown) == 8 * len(history[-1])
    assert list(grown.walk(key, 0)) == list(fresh.walk(key, 0))
    assert grown.pair(key) == fresh.pair(key)


@given(seats, st.integers(0, 2**64 - 1), st.sampled_from([0, 1]))
def test_a_walk_meets_everybody_once(members: frozenset[WorkerId], key: int, side: int) -> None:
    met = list(ring_of(members, points=4).walk(key, side))
    assert len(met) == len(members)
    assert set(met) == members


@pytest.mark.parametrize("count", [4, 8, 32])
def test_a_worker_that_joins_takes_its_share_and_no_more(count: int) -> None:
    before, after = ring_of(workers(count)), ring_of(workers(count + 1))
    new = WorkerId(f"prefill-{count}")
    for side in (0, 1):
        moved = [k for k in KEYS if next(before.walk(k, side)) != next(after.walk(k, side))]
        assert all(next(after.walk(key, side)) == new for key in moved)
        assert len(moved) <= 2 / count * len(KEYS)


@pytest.mark.parametrize("count", [4, 8, 32])
def test_a_worker_that_leaves_moves_only_its_own_keys(count: int) -> None:
    before = ring_of(workers(count))
    gone = WorkerId("prefill-1")
    after = ring_of(workers(count) - {gone})
    changed = 0
    for key in KEYS:
        old, new = before.pair(key), after.pair(key)
        if gone in old:
            changed += 1
            assert set(old) - {gone} <= set(new), "the other one keeps the key, and the cache"
        else:
            assert new == old
    assert changed <= 2 * 2 / count * len(KEYS)


@pytest.mark.parametrize("count", [4, 8, 32])
def test_no_key_changes_both_workers_unless_both_arcs_were_hit(count: int) -> None:
    before, after = ring_of(workers(count)), ring_of(workers(count + 1))
    for key in KEYS:
        lost = set(before.pair(key)) - set(after.pair(key))
        hit = sum(next(before.walk(key, s)) != next(after.walk(key, s)) for s in (0, 1))
        assert len(lost) <= 1, "one newcomer can replace one of a pair"
        assert not lost or hit or _collided(before, key)


def _collided(ring: Ring, key: int) -> bool:
    return next(ring.walk(key, 0)) == next(ring.walk(key, 1))


def test_pairs_are_spread_evenly() -> None:
    ring = ring_of(workers(8))
    load = Counter(worker for key in KEYS for worker in ring.pair(key))
    mean = 2 * len(KEYS) / 8
    assert max(load.values()) < 1.35 * mean
    assert min(load.values()) > 0.65 * mean
    assert {frozenset(ring.pair(key)) for key in KEYS} == {
        frozenset(pair) for pair in combinations(sorted(workers(8)), 2)
    }


def test_the_same_members_cost_nothing() -> None:
    members = workers(3)
    ring = ring_of(members)
    assert ring.members is members
    ring.sync(members)
    assert len(ring) == 3 * 128
