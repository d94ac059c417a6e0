"""Every tile of keys of every request is somebody's, once; and nobody has much more than the others."""

from bisect import bisect_right
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.split_rule import SplitRule
from tercet.kernels.gpu.task_map import DecodeTasks, decode_tasks
from tercet.kernels.paged_batch import PagedBatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TILE, HEADS = 4, 3
SPLITS = SplitRule(8, 32)


def mapped(runs: list[tuple[int, int]], **options: int) -> DecodeTasks:
    lengths = [rows for _, rows in runs]
    tables = [list(range(-(-(context + rows) // 16))) for context, rows in runs]
    host = PagedBatch.of(lengths, [context for context, _ in runs], tables, 16)
    options = {"window": 0, "programs": 5, "splits_max": 100, "rows": 1, **options}
    batch = DeviceBatch.of(host, DEVICE)
    return decode_tasks(batch, HEADS, tile=TILE, splits=SPLITS, **options)


def tiles_of(tasks: DecodeTasks) -> list[list[tuple[int, int, int]]]:
    """The (request, head, tile) of each program, in its order."""
    shares, splits = tasks.shares_P1.tolist(), tasks.splits_R1.tolist()
    items = [range(a, b) for a, b in pairwise(shares)]
    found = []
    for share in items:
        found.append([])
        for item in share:
            request, begin, end, _ = tasks.tasks_S4[item // HEADS].tolist()
            assert begin < end <= (begin // SPLITS.most + 1) * SPLITS.most
            assert begin % TILE == 0
            assert request == bisect_right(splits, item // HEADS) - 1
            found[-1] += [(request, item % HEADS, at // TILE) for at in range(begin, end, TILE)]
    return found


@settings(max_examples=15, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 4)), min_size=1, max_size=6),
    window=st.sampled_from([0, 1, 5, 30]),
    programs=st.integers(1, 9),
    rows=st.integers(1, 3),
)
def test_every_tile_that_a_row_sees_is_computed_once_and_programs_are_balanced(
    runs: list[tuple[int, int]], window: int, programs: int, rows: int
) -> None:
    tasks = mapped(runs, window=window, programs=programs, rows=rows)
    shares = tiles_of(tasks)
    expected = {
        (request, head, tile)
        for request, (context, length) in enumerate(runs)
        for head in range(HEADS)
        for tile in range(
            max(0, context + 1 - window) // TILE if window else 0, -(-(context + length) // TILE)
        )
        if length <= rows
    }
    everything = [tile for share in shares for tile in share]
    assert len(everything) == len(expected)
    assert set(everything) == expected
    mean = len(everything) / programs
    assert all(abs(len(share) - mean) < SPLITS.most // TILE for share in shares)


def test_how_a_request_is_split_does_not_depend_on_the_batch() -> None:
    together, alone = mapped([(3, 1), (70, 1), (25, 2), (11, 1)]), mapped([(70, 1)])
    first, last = together.splits_R1[1:3].tolist()
    assert torch.equal(together.tasks_S4[first:last, 1:], alone.tasks_S4[: last - first, 1:])


def test_a_request_without_rows_costs_nothing() -> None:
    tasks = mapped([(30, 1)])
    starts, contexts, none, tables = (
        torch.tensor(x, dtype=torch.int32, device=DEVICE)
        for x in ([0, 0, 1, 1, 1], [9, 30, 0, 0], [], [[0]] * 4)
    )
    batch = DeviceBatch(starts, contexts, none, none, tables)
    padded = decode_tasks(
        batch, HEADS, tile=TILE, splits=SPLITS, window=0, programs=5, splits_max=100
    )
    assert torch.equal(padded.shares_P1, tasks.shares_P1)
    assert padded.splits_R1.tolist() == [0, 0, 4, 4, 4]
    assert torch.equal(padded.tasks_S4[:4, 1:], tasks.tasks_S4[:4, 1:])


def test_nothing_is_done_where_there_is_nothing_to_do() -> None:
    assert mapped([(30, 2)]).shares_P1.tolist() == [0] * 6


@pytest.mark.parametrize("programs", [1, 5])
def test_splits_without_room_are_left_out_and_not_written_elsewhere(programs: int) -> None:
    tasks = mapped([(30, 1), (40, 1)], splits_max=6, programs=programs)
    assert tasks.splits_R1.tolist() == [0, 4, 6]
    assert tasks.shares_P1[-1] == 6 * HEADS
