"""Which program computes what in this step, told by the device itself, once for all layers.

Legend: R requests, S splits of all requests, P programs, M tiles of query rows, G key/value heads. A split is a run of
positions of one request, as long as `SplitRule` says for its length, that starts at a multiple of that; so how a request is cut
depends on nothing but itself.

An item is a split and a key/value head; items are ordered by request, split and head, and cost as many tiles as the split
touches. Each program gets the items that start within its P-th of all tiles, hence at most one split more than the mean
(the idea of FlashInfer's plan, arXiv 2501.01005, without its host).
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.split_rule import SplitRule, split_size

LANES = 64


@dataclass(frozen=True, slots=True)
class DecodeTasks:
    """Work over requests of 1 … `rows` rows, for layers that see `window` positions (0: all)."""

    tasks_S4: torch.Tensor
    """Of each split: its request, first position (a multiple of `tile`), end, and the position of the request's first row."""
    splits_R1: torch.Tensor
    """Splits `splits_R1[r] … splits_R1[r + 1] - 1` are request r's."""
    shares_P1: torch.Tensor
    """Items `shares_P1[p] … shares_P1[p + 1] - 1` are program p's; item i is head `i % G` of split `i // G`."""
    rows: int
    window: int
    tile: int
    splits: SplitRule

    @property
    def splits_max(self) -> int:
        return self.tasks_S4.shape[0]

    @property
    def programs(self) -> int:
        return self.shares_P1.shape[0] - 1


@triton.jit(do_not_specialize=["requests", "programs", "splits_max"])
def decode_tasks_kernel(
    query_starts, contexts, tasks, splits, shares, requests, programs, splits_max,
    HEADS: tl.constexpr, ROWS: tl.constexpr, WINDOW: tl.constexpr, TILE: tl.constexpr,
    LEAST: tl.constexpr, DOUBLINGS: tl.constexpr, REQUESTS: tl.constexpr, PROGRAMS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One program a request; each adds up those before its own."""
    r = tl.program_id(0)
    every = tl.arange(0, REQUESTS)
    starts = tl.load(query_starts + every, mask=every < requests, other=0)
    rows = tl.load(query_starts + every + 1, mask=every < requests, other=0) - starts
    context = tl.load(contexts + every, mask=every < requests, other=0)
    served = (rows >= 1) & (rows <= ROWS)
    end = tl.where(served, context + rows, 0)
    first_tile = tl.where(served & (WINDOW > 0), tl.maximum(context + 1 - WINDOW, 0) // TILE, 0)
    tiles = tl.cdiv(end, TILE) - first_tile
    size = split_size(end, LEAST, DOUBLINGS)
    counts = tl.cdiv(end, size) - first_tile * TILE // size

    mine, before = every == r, every < r
    end = tl.sum(tl.where(mine, end, 0))
    size = tl.sum(tl.where(mine, size, 0))
    context = tl.sum(tl.where(mine, context, 0))
    first_tile = tl.sum(tl.where(mine, first_tile, 0))
    count = tl.sum(tl.where(mine, counts, 0))
    number = tl.sum(tl.where(before, counts, 0))
    tiles_before = tl.sum(tl.where(before, tiles, 0))
    tiles_all = tl.sum(tiles)
    tiles = tl.sum(tl.where(mine, tiles, 0))
    tl.store(splits + r, tl.minimum(number, splits_max))
    first_split = first_tile * TILE // size
    for done in range(0, count, LANES):
        n = done + tl.arange(0, LANES)
        to = tasks + (number + n) * 4
        fits = (n < count) & (number + n < splits_max)
        position = (first_split + n) * size
        tl.store(to, r, mask=fits)
        tl.store(to + 1, tl.maximum(position, first_tile * TILE), mask=fits)
        tl.store(to + 2, tl.minimum(position + size, end), mask=fits)
        tl.store(to + 3, context, mask=fits)

    # Program p starts at the first item that begins at or after its share of the row of all items' tiles. The last
    # request also speaks for the programs that are left over.
    mine_end = tiles * HEADS
    spoken_end = mine_end
    if r == requests - 1:
        tl.store(splits + requests, tl.minimum(number + count, splits_max))
        spoken_end = tiles_all * HEADS + 1
    p = tl.arange(0, PROGRAMS)
    share = (tiles_all * HEADS).to(tl.int64) * p // programs - tiles_before * HEADS
    spoken = (p <= programs) & (share >= 0) & (share < spoken_end)
    inside = spoken & (share < mine_end)
    share = tl.where(inside, share, 0).to(tl.int32)
    split = (first_tile + share // HEADS) * TILE // size
    split_begin = tl.maximum(split * (size // TILE) - first_tile, 0)
    split_end = tl.minimum((split + 1) * (size // TILE) - first_tile, tiles)
    head = tl.cdiv(share - split_begin * HEADS, tl.maximum(split_end - split_begin, 1))
    item = (number + split - first_split) * HEADS + head
    item = tl.where(inside, item, (number + count) * HEADS)
    tl.store(shares + p, tl.minimum(item, splits_max * HEADS), mask=spoken)


def decode_tasks(
    batch: DeviceBatch,
    kv_heads: int,
    *,
    window: int,
    tile: int,
    splits: SplitRule,
    programs: int,
    splits_max: int,
    rows: int = 1,
) -> DecodeTasks:
    """At most `splits_max` splits are kept: it must be at least as many as `splits` counts for all requests."""
    assert splits.least % tile == 0, (splits, tile)
    device, requests = batch.contexts_R.device, batch.requests
    tasks_S4 = torch.empty((splits_max, 4), dtype=torch.int32, device=device)
    splits_R1 = torch.empty(requests + 1, dtype=torch.int32, device=device)
    shares_P1 = torch.empty(programs + 1, dtype=torch.int32, device=device)
    decode_tasks_kernel[requests,](
        batch.query_starts_R1, batch.contexts_R, tasks_S4, splits_R1, shares_P1,
        requests, programs, splits_max,
        HEADS=kv_heads, ROWS=rows, WINDOW=window, TILE=tile, LEAST=splits.least,
        DOUBLINGS=splits.doublings, REQUESTS=triton.next_power_of_2(requests), PROGRAMS=triton.next_power_of_2(programs + 1),
        LANES=LANES,
    )  # fmt: skip
    return DecodeTasks(tasks_S4, splits_R1, shares_P1, rows, window, tile, splits)
