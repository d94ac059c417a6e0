"""Attention of requests with many new rows over their pages, which hold the keys and values of those rows already.

Legend: N rows of all requests, H query heads, G key/value heads, D head dim, B pages, T tokens of a page, M rows of a tile:
the query heads of one key/value head, for as many tokens as fit.

FlashAttention-2 (arXiv 2307.08691) over a block table. Tiles of keys begin at multiples of `tile` of a request's positions,
and a tile of which a row sees nothing leaves it as it is. A row's bits therefore depend neither on the batch nor on the chunks
its prompt was cut into, as long as this kernel computes them all; `fresh_attention` with the same `tile` makes the same sums.
The twin is `chunk_attention_twin`.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu import online_softmax, page_tile
from tercet.kernels.gpu.attend_rows import attend_paged_rows
from tercet.kernels.gpu.attention_tuning import PrefillTuning
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.operands import operands
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.query_tiles import QueryTiles
from tercet.kernels.softmax_rule import SoftmaxRule


@triton.jit(do_not_specialize=["table_row"])  # it changes from step to step
def chunk_kernel(
    q, pages, k_scales, v_scales, sinks, out, query_starts, contexts, tables, tiles,
    scale, q_row, q_head, out_row, out_head, page_stride, table_row,
    G: tl.constexpr, GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr,
    M: tl.constexpr, TILE: tl.constexpr, PADDED: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SINKS: tl.constexpr, SCALED: tl.constexpr, LEVELLED: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`TOKENS` rows of one request, for the query heads of one key/value head."""
    request = tl.load(tiles + tl.program_id(1) * 2)
    if request < 0:
        return
    first = tl.load(tiles + tl.program_id(1) * 2 + 1)
    head = tl.program_id(0)
    row = tl.load(query_starts + request) + first
    rows = tl.minimum(tl.load(query_starts + request + 1) - row, TOKENS)
    context = tl.load(contexts + request) + first
    m = tl.arange(0, M)
    d = tl.arange(0, PADDED)
    heads_M = head * GROUP + m % GROUP
    rows_M = (row + m // GROUP).to(tl.int64)
    known = m // GROUP < rows
    there = known[:, None] & (d < D)[None, :]
    at = rows_M * q_row + heads_M * q_head
    q_MD = tl.load(q + at[:, None] + d[None, :], mask=there, other=0.0)
    keys = pages + head * (T * D)
    table = tables + request.to(tl.int64) * table_row
    factor = scale
    if SCALED:
        factor = scale * tl.load(k_scales + head)
    q_MD, factor_M = online_softmax.queries(q_MD, factor, LEVELLED, OPERAND, M)
    last_M = context + tl.minimum(m // GROUP, rows - 1)
    most_M, total_M, acc_MD = online_softmax.begin(sinks, heads_M, known, SINKS, M, PADDED)
    end = context + rows
    begin = 0
    whole_end = (context + 1) // TILE * TILE
    if WINDOW:
        begin = tl.maximum(context + 1 - WINDOW, 0) // TILE * TILE
        whole_end = begin  # the window's lower end cuts into whole tiles too: all are masked

    for position in range(begin, whole_end, TILE):
        k_at = page_tile.pointers(keys, table, position, end, page_stride, T, D, TILE, PADDED)
        k_KD = tl.load(k_at, mask=(d < D)[None, :], other=0.0).to(OPERAND)
        v_KD = tl.load(k_at + G * T * D, mask=(d < D)[None, :], other=0.0).to(OPERAND)
        scores_MK = tl.dot(q_MD, tl.trans(k_KD), input_precision=PRECISION)
        scores_MK, unit_M = online_softmax.capped(scores_MK, factor_M, SOFTCAP, M)
        most_M, total_M, acc_MD = online_softmax.fold(
            scores_MK, unit_M, v_KD, most_M, total_M, acc_MD, False, OPERAND, PRECISION
        )
    for position in range(whole_end, end, TILE):
        key_K = position + tl.arange(0, TILE)
        inside_K = key_K < end
        if WINDOW:
            inside_K = inside_K & (key_K > context - WINDOW)
        inside = inside_K[:, None] & (d < D)[None, :]
        k_at = page_tile.pointers(keys, table, position, end, page_stride, T, D, TILE, PADDED)
        k_KD = tl.load(k_at, mask=inside, other=0.0).to(OPERAND)
        v_KD = tl.load(k_at + G * T * D, mask=inside, other=0.0).to(OPERAND)
        scores_MK = tl.dot(q_MD, tl.trans(k_KD), input_precision=PRECISION)
        scores_MK, unit_M = online_softmax.capped(scores_MK, factor_M, SOFTCAP, M)
        scores_MK = online_softmax.hidden(scores_MK, key_K, last_M, WINDOW)
        most_M, total_M, acc_MD = online_softmax.fold(
            scores_MK, unit_M, v_KD, most_M, total_M, acc_MD, WINDOW > 0, OPERAND, PRECISION
        )
    if SCALED:
        acc_MD *= tl.load(v_scales + head)
    to = rows_M * out_row + heads_M * out_head
    out_MD = (acc_MD / total_M[:, None]).to(out.dtype.element_ty)
    tl.store(out + to[:, None] + d[None, :], out_MD, mask=there)


def chunk_attention(
    q_NHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    tiles: QueryTiles,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
    tuning: PrefillTuning,
    scales: PageScales | None = None,
) -> None:
    """Fills `out_NHD` in the rows that are in `tiles`, which must be of this batch and of `tuning.rows // (H / G)` rows."""
    heads_kv, tokens, dim = page_tile.check_pages(q_NHD, pages_B2GTD, scales)
    group = q_NHD.shape[1] // heads_kv
    assert tiles.tile_rows == tuning.rows // group, (tiles.tile_rows, tuning.rows, group)
    assert rule.scale > 0, rule.scale
    assert out_NHD.shape == q_NHD.shape, (out_NHD.shape, q_NHD.shape)
    assert out_NHD.stride(2) == 1, out_NHD.stride()
    fed = operands(q_NHD.dtype, pages_B2GTD.dtype)
    chunk_kernel[heads_kv, len(tiles.tiles_M2)](
        q_NHD, pages_B2GTD, scales and scales.k_G, scales and scales.v_G, rule.sinks, out_NHD,
        batch.query_starts_R1, batch.contexts_R, batch.tables_RW, tiles.tiles_M2, rule.scale,
        *q_NHD.stride()[:2], *out_NHD.stride()[:2], pages_B2GTD.stride(0), batch.tables_RW.stride(0),
        G=heads_kv, GROUP=group, T=tokens, D=dim, TOKENS=tiles.tile_rows, M=tuning.rows,
        TILE=tuning.tile, PADDED=triton.next_power_of_2(max(dim, 16)), WINDOW=rule.window,
        SOFTCAP=rule.softcap, SINKS=rule.sinks is not None, SCALED=scales is not None,
        LEVELLED=fed.levelled, OPERAND=fed.kind, PRECISION=fed.precision,
        num_warps=tuning.warps, num_stages=tuning.stages,
    )  # fmt: skip


def chunk_attention_twin(
    q_NHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    skipped: int,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
    scales: PageScales | None = None,
) -> None:
    """The same for requests of more than `skipped` rows."""
    starts = batch.query_starts_R1.tolist()
    for request, (begin, end) in enumerate(pairwise(starts)):
        if end - begin > skipped:
            out_NHD[begin:end] = attend_paged_rows(q_NHD, pages_B2GTD, scales, batch, request, rule)
