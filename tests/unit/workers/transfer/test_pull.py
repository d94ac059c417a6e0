"""Copies are as few as the blocks' neighbourhood allows, and always the right ones."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.workers.transfer.pull import Run, runs


def test_neighbours_on_both_sides_become_one_copy():
    assert runs([4, 5, 6, 9], [1, 2, 3, 4]) == [Run(4, 1, 3), Run(9, 4, 1)]


def test_neighbours_on_one_side_only_stay_apart():
    assert runs([4, 5], [2, 1]) == [Run(4, 2, 1), Run(5, 1, 1)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_runs_name_exactly_the_given_blocks_in_order(pairs):
    local, remote = [a for a, _ in pairs], [b for _, b in pairs]
    named = [
        (run.local + i, run.remote + i) for run in runs(local, remote) for i in range(run.length)
    ]
    assert named == pairs
