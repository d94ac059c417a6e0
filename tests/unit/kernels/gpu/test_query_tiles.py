import pytest
import torch

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.query_tiles import query_tiles
from tercet.kernels.paged_batch import PagedBatch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("skipped", [0, 1, 7])
@pytest.mark.parametrize("tile_rows", [1, 7, 32])
@pytest.mark.parametrize("lengths", [[1], [8, 1, 300, 32, 7], [1, 1, 2]])
def test_every_row_is_in_one_tile_and_late_rows_come_first(
    lengths: list[int], tile_rows: int, skipped: int
) -> None:
    tables = [list(range(-(-length // 16))) for length in lengths]
    host = PagedBatch.of(lengths, [0] * len(lengths), tables, 16)
    tiles = query_tiles(DeviceBatch.of(host, DEVICE), tile_rows, skipped)
    found = [(request, first) for request, first in tiles.tiles_M2.tolist() if request >= 0]
    assert found == [
        (request, first)
        for request, length in enumerate(lengths)
        if length > skipped
        for first in reversed(range(0, length, tile_rows))
    ]
    assert (tiles.tiles_M2[len(found) :, 0] == -1).all()
