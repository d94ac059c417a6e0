"""Copies are as few as the blocks' neighbourhood allows, and always the right ones."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.workers.transfer.runs import numbers, runs


def triples(local, remote):
    return list(
        zip(*(part.tolist() for part in runs(numbers(local), numbers(remote))), strict=True)
    )


def test_neighbours_on_both_sides_become_one_copy():
    assert triples([4, 5, 6, 9], [1, 2, 3, 4]) == [(4, 1, 3), (9, 4, 1)]


def test_neighbours_on_one_side_only_stay_apart():
    assert triples([4, 5], [2, 1]) == [(4, 2, 1), (5, 1, 1)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1))
def test_runs_name_exactly_the_given_blocks_in_order(pairs):
    local, remote = [a for a, _ in pairs], [b for _, b in pairs]
    found = triples(local, remote)
    assert [(a + i, b + i) for a, b, length in found for i in range(length)] == pairs
