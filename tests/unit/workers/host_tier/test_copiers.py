"""Whoever copies moves exactly the bytes that were ordered, and says so once."""

import pytest
import torch

from tercet.ids import BlockId
from tercet.workers.host_tier import Copier, Copies, Direction, HostBlock
from tercet.workers.host_tier.copying import open_copier
from tercet.workers.host_tier.late_copier import LateCopier
from tercet.workers.host_tier.plain_copier import PlainCopier
from tercet.workers.host_tier.stream_copier import StreamCopier
from tercet.workers.kv_pool import KvGeometry, KvPool

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
GEOMETRY = KvGeometry(2, 2, 8, 16, torch.bfloat16)


def copies(number: int, direction: Direction, blocks: list[int], slots: list[int]) -> Copies:
    return Copies(number, direction, tuple(map(BlockId, blocks)), tuple(map(HostBlock, slots)))


def filled(device: str) -> KvPool:
    """Block `i` is full of `i + 1`."""
    pool = KvPool(GEOMETRY, 12, torch.device(device))
    for block in range(12):
        pool.tensor[block] = block + 1
    return pool


def content(pool: KvPool) -> list[float]:
    """Of each block, which must hold one number only."""
    blocks = pool.tensor.flatten(1).float().cpu()
    assert torch.equal(blocks.amin(1), blocks.amax(1))
    return blocks[:, 0].tolist()


def finish(copier: Copier) -> list[int]:
    copier.wait()
    return copier.done()


def test_neighbours_on_both_sides_are_one_piece() -> None:
    order = copies(1, Direction.SAVE, [3, 4, 5, 9, 10, 11], [0, 1, 2, 3, 4, 6])
    assert list(order.spans) == [(3, 0, 3), (9, 3, 2), (11, 6, 1)]


@pytest.mark.parametrize("device", ["cpu", CUDA])
def test_blocks_come_back_elsewhere_as_they_were(device: str) -> None:
    pool = filled(device)
    copier = open_copier(pool, 6)
    assert isinstance(copier, StreamCopier if device == "cuda" else PlainCopier)
    copier.submit(copies(1, Direction.SAVE, [2, 3, 7], [4, 5, 0]))
    assert finish(copier) == [1]
    assert copier.done() == []
    pool.tensor[2:8] = 0
    copier.submit(copies(2, Direction.FETCH, [3, 2, 5], [4, 5, 0]))
    assert finish(copier) == [2]
    assert content(pool) == [1, 2, 4, 3, 0, 8, 0, 0, 9, 10, 11, 12]


@pytest.mark.gpu
def test_a_copy_waits_for_the_steps_that_were_launched_before_it() -> None:
    """The device is busy for a while, and then writes the block that is to be saved, and reads the one that is written."""
    pool = filled("cuda")
    copier = open_copier(pool, 2)
    copier.submit(copies(1, Direction.SAVE, [0], [0]))
    assert finish(copier) == [1]
    torch.cuda._sleep(200_000_000)
    pool.tensor[1] = 50
    read = pool.tensor[2].clone()
    copier.submit(copies(2, Direction.SAVE, [1], [1]))
    copier.submit(copies(3, Direction.FETCH, [2], [0]))
    assert copier.done() == [], "the host has waited"
    done = finish(copier)
    while sorted(done) != [2, 3]:
        done += finish(copier)
    copier.submit(copies(4, Direction.FETCH, [3], [1]))
    assert finish(copier) == [4]
    assert content(pool)[:4] == [1, 50, 1, 50]
    assert read.float().unique().tolist() == [3]


def test_a_late_copier_copies_when_it_is_waited_for() -> None:
    pool = filled("cpu")
    copier = LateCopier(open_copier(pool, 2), asked_max=10**9)
    copier.submit(copies(1, Direction.SAVE, [0], [0]))
    pool.tensor[0] = 9
    assert [copier.done() for _ in range(3)] == [[], [], []]
    assert finish(copier) == [1]
    copier.submit(copies(2, Direction.FETCH, [1], [0]))
    assert finish(copier) == [2]
    assert content(pool)[:2] == [9, 9]


def test_a_late_copier_loses_its_patience() -> None:
    copier = LateCopier(open_copier(filled("cpu"), 2), asked_max=2)
    copier.submit(copies(1, Direction.SAVE, [0], [0]))
    assert [copier.done() for _ in range(3)] == [[], [1], []]
