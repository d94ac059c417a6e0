"""Tiles of query rows: what prefill attention's programs are given, told by the device itself, once for all layers.

Legend: R requests, N rows, M tiles. A tile is a run of at most `tile_rows` rows of one request. Tiles of one request come last
rows first, because those see most, and what takes long should begin early.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.device_batch import DeviceBatch

LANES = 64


@dataclass(frozen=True, slots=True)
class QueryTiles:
    """All rows of requests with more than `skipped` of them. A tile that stands for none has request -1."""

    tiles_M2: torch.Tensor
    """Of each tile: its request, and the first of its rows, counted within the request."""
    tile_rows: int
    skipped: int


@triton.jit(do_not_specialize=["requests", "tiles_max"])
def query_tiles_kernel(
    query_starts, tiles, requests, tiles_max,
    TILE_ROWS: tl.constexpr, SKIPPED: tl.constexpr, REQUESTS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One program a request; each adds up those before its own, and the last one fills what is left."""
    r = tl.program_id(0)
    every = tl.arange(0, REQUESTS)
    starts = tl.load(query_starts + every, mask=every < requests, other=0)
    rows = tl.load(query_starts + every + 1, mask=every < requests, other=0) - starts
    counts = tl.where(rows > SKIPPED, tl.cdiv(rows, TILE_ROWS), 0)
    count = tl.sum(tl.where(every == r, counts, 0))
    before = tl.sum(tl.where(every < r, counts, 0))
    written = count
    if r == requests - 1:
        written = tiles_max - before
    for done in range(0, written, LANES):
        n = done + tl.arange(0, LANES)
        to = tiles + (before + n) * 2
        tl.store(to, tl.where(n < count, r, -1), mask=n < written)
        tl.store(to + 1, (count - 1 - n) * TILE_ROWS, mask=n < written)


def query_tiles(batch: DeviceBatch, tile_rows: int, skipped: int = 0) -> QueryTiles:
    """As many tiles as rows and requests of that number may need, whatever their lengths."""
    tiles_max = (batch.rows + batch.requests * (tile_rows - 1)) // tile_rows
    tiles_M2 = torch.empty((tiles_max, 2), dtype=torch.int32, device=batch.contexts_R.device)
    query_tiles_kernel[batch.requests,](
        batch.query_starts_R1, tiles_M2, batch.requests, tiles_max,
        TILE_ROWS=tile_rows, SKIPPED=skipped, REQUESTS=triton.next_power_of_2(batch.requests),
        LANES=LANES,
    )  # fmt: skip
    return QueryTiles(tiles_M2, tile_rows, skipped)
