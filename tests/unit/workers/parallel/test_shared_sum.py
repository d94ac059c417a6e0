"""Every rank gets the sum of all, of every type and size, with the same bits whatever else is summed with it."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from tercet.errors import PeerLost
from tercet.workers.parallel import shared_sum
from tercet.workers.parallel.shared_sum import Mesh

Sum = Callable[[list[torch.Tensor]], list[torch.Tensor]]


@pytest.fixture
def meshes() -> Iterator[list[Mesh]]:
    made: list[Mesh] = []
    yield made
    for mesh in made:
        mesh.close()


@pytest.fixture
def summed(meshes: list[Mesh]) -> Iterator[Callable[[int], Sum]]:
    """Sums one tensor a rank, each on a thread."""
    pools: list[ThreadPoolExecutor] = []

    def make(ranks: int) -> Sum:
        mesh, pool = Mesh(ranks), ThreadPoolExecutor(ranks)
        meshes.append(mesh)
        pools.append(pool)
        sides = [mesh.side(rank) for rank in range(ranks)]
        return lambda parts: list(pool.map(lambda side, part: side(part.clone()), sides, parts))

    yield make
    for pool in pools:
        pool.shutdown()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_get_the_sum(summed, monkeypatch, ranks, dtype):
    monkeypatch.setattr(shared_sum, "SLOT_BYTES", 256)
    add = summed(ranks)
    for shape in [(1, 3), (1, 128), (5, 130), (1, 1)]:
        parts = [torch.randn(shape).to(dtype) for _ in range(ranks)]
        exact = sum(part.double() for part in parts).to(dtype)
        for total in add(parts):
            torch.testing.assert_close(total, exact)


def test_a_row_has_the_same_bits_alone_and_among_others(summed):
    add = summed(3)
    parts = [torch.randn(7, 33) for _ in range(3)]
    together = add(parts)
    assert all(torch.equal(together[0], other) for other in together[1:])
    alone = add([part[4:5] for part in parts])
    assert torch.equal(together[0][4:5], alone[0])


def test_a_fast_rank_overwrites_nothing_that_a_slow_one_has_yet_to_read(meshes):
    mesh = Mesh(2)
    meshes.append(mesh)
    totals: list[list[float]] = [[], []]

    def run(rank: int) -> None:
        side = mesh.side(rank)
        for turn in range(300):
            if (turn + rank) % 7 == 0:
                threading.Event().wait(0.0005)
            totals[rank].append(float(side(torch.full((64,), float(turn + 1)))[0]))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert totals == [[2.0 * (turn + 1) for turn in range(300)]] * 2


def test_a_rank_that_is_gone_is_an_error_and_not_a_wait(meshes):
    mesh = Mesh(2)
    meshes.append(mesh)
    side = mesh.side(0)
    mesh.ends[1][0].close()
    with pytest.raises(PeerLost):
        side(torch.ones(3))
