"""Whatever the number of ranks on either side, every head arrives where it belongs, and nothing else is touched."""

import ctypes
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import TransferFailed
from tercet.wire import KvRegion
from tercet.workers.transfer.base import HeadShare, Memory
from tercet.workers.transfer.heads import needed_ranks, overlaps, sources
from tercet.workers.transfer.runs import runs

BLOCKS, PLANES, HEAD_BYTES = 7, 4, 24


def pool(heads: int) -> np.ndarray:
    return np.zeros((BLOCKS, PLANES, heads, HEAD_BYTES), dtype=np.uint8)


def memory(part: np.ndarray, rank: int, ranks: int, heads: int) -> Memory:
    share = HeadShare(rank, ranks, PLANES, heads)
    return Memory(part.ctypes.data, part[0].nbytes, BLOCKS, 0, share=share)


def region(part: np.ndarray, name: str) -> KvRegion:
    return KvRegion(name.encode(), part.ctypes.data, part[0].nbytes, BLOCKS, 0)


shared_out = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]).flatmap(
    lambda heads: st.tuples(
        st.just(heads),
        st.sampled_from([k for k in range(1, heads + 1) if heads % k == 0]),
        st.sampled_from([k for k in range(1, heads + 1) if heads % k == 0]),
    )
)
blocks = st.lists(st.integers(0, BLOCKS - 1), min_size=1, max_size=BLOCKS, unique=True)


@settings(deadline=None)
@given(shared_out, blocks, st.randoms(use_true_random=False))
def test_every_head_of_every_block_arrives_where_it_belongs(ranks, local, dice):
    heads, here, there = ranks
    remote = dice.sample(range(BLOCKS), len(local))
    whole = np.random.default_rng(0).integers(1, 255, pool(heads).shape, dtype=np.uint8)
    theirs = [np.ascontiguousarray(part) for part in np.split(whole, there, axis=2)]
    ours = [pool(heads // here) for _ in range(here)]
    regions = [region(part, f"p:1/{rank}") for rank, part in enumerate(theirs)]
    to, at = np.array(local), np.array(remote)
    for rank, part in enumerate(ours):
        own = memory(part, rank, here, heads)
        for source in sources(own, "p:1", regions):
            for destination, origin, length in source.spans(own, to, at, runs(to, at)).tolist():
                ctypes.memmove(destination, origin, length)
    arrived = np.concatenate(ours, axis=2)
    assert (arrived[local] == whole[remote]).all()
    assert not arrived[np.setdiff1d(np.arange(BLOCKS), local)].any()


@settings(deadline=None)
@given(shared_out)
def test_each_head_is_read_once_and_only_from_ranks_that_are_known(ranks):
    heads, here, there = ranks
    for rank in range(here):
        own = memory(pool(heads // here), rank, here, heads)
        assert own.share is not None
        found = overlaps(own.share, there)
        ends = [(each.here, each.here + each.heads) for each in found]
        assert (ends[0][0], ends[-1][1]) == (0, heads // here)
        assert all(end == begin for (_, end), (begin, _) in pairwise(ends))
        assert {0, *(each.rank for each in found)} == set(needed_ranks(own, there))


def test_ranks_that_hold_the_same_heads_copy_whole_runs_of_blocks():
    own, theirs = pool(2), [pool(2), pool(2)]
    mine = memory(own, 1, 2, 4)
    (source,) = sources(mine, "p:1", [region(part, "p") for part in theirs])
    to, at = np.array([2, 3, 4]), np.array([0, 1, 2])
    copies = source.spans(mine, to, at, runs(to, at))
    assert source.agent == "p:1/1"
    assert copies[:, 2].tolist() == [3 * own[0].nbytes]


@pytest.mark.parametrize(
    ("ranks", "bytes_more", "reason"),
    [(1, 8, "do not fit"), (2, 8, "do not fit"), (3, 0, "3 ranks cannot hold 4 heads")],
)
def test_parts_that_are_not_parts_of_such_blocks_are_refused(ranks, bytes_more, reason):
    own = memory(pool(4), 0, 1, 4)
    part = KvRegion(b"p", 0, own.block_bytes // ranks + bytes_more, BLOCKS, 0)
    with pytest.raises(TransferFailed, match=reason):
        sources(own, "p:1", [part] * ranks)
