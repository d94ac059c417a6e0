"""Attention of requests with one new row, or a few, over their pages.

Legend: N rows of all requests, H query heads, G key/value heads, D head dim, B pages, T tokens of a page, S splits,
M rows of a tile: the query heads of one key/value head, for each row of a request, padded for tensor cores.

Flash-Decoding (Dao et al., 2023) with splits whose size a request's own length decides, on a persistent grid whose work
`task_map` has dealt out, so the grid is the same whatever the lengths. Every split leaves a partial result; a second kernel
combines a row's splits in their order. A row's bits therefore depend on its own request alone, not on the batch.
The twin is `decode_attention_twin`.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu import online_softmax, page_tile
from tercet.kernels.gpu.attend_rows import attend_paged_rows
from tercet.kernels.gpu.attention_tuning import DecodeTuning
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.operands import operands
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.task_map import DecodeTasks
from tercet.kernels.softmax_rule import SoftmaxRule

TENSOR_CORE_ROWS = 16
COMBINED_SPLITS = 16
COMBINING_WARPS = 2


@triton.jit(do_not_specialize=["table_row"])  # it changes from step to step
def split_kernel(
    q, pages, k_scales, v_scales, query_starts, tables, tasks, shares, partial, partial_log,
    scale, q_row, q_head, page_stride, table_row,
    G: tl.constexpr, GROUP: tl.constexpr, T: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    M: tl.constexpr, TILE: tl.constexpr, PADDED: tl.constexpr, WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr, SCALED: tl.constexpr, LEVELLED: tl.constexpr,
    OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Each of a program's items: one split of one request, for the query heads of one key/value head."""
    m = tl.arange(0, M)
    d = tl.arange(0, PADDED)
    program = tl.program_id(0)
    for item in range(tl.load(shares + program), tl.load(shares + program + 1)):
        split = item // G
        head = item % G
        task = tasks + split * 4
        request = tl.load(task)
        begin = tl.load(task + 1)
        end = tl.load(task + 2)
        context = tl.load(task + 3)
        row = tl.load(query_starts + request)
        rows = tl.load(query_starts + request + 1) - row
        known = m < rows * GROUP
        at = (row + m // GROUP).to(tl.int64) * q_row + (head * GROUP + m % GROUP) * q_head
        there = known[:, None] & (d < D)[None, :]
        q_MD = tl.load(q + at[:, None] + d[None, :], mask=there, other=0.0)
        keys = pages + head * (T * D)
        table = tables + request.to(tl.int64) * table_row
        factor = scale
        if SCALED:
            factor = scale * tl.load(k_scales + head)
        q_MD, factor_M = online_softmax.queries(q_MD, factor, LEVELLED, OPERAND, M)
        last_M = context + m // GROUP
        most_M, total_M, acc_MD = online_softmax.begin(None, m, known, False, M, PADDED)
        for position in range(begin, end, TILE):
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
                scores_MK, unit_M, v_KD, most_M, total_M, acc_MD, True, OPERAND, PRECISION
            )
        if SCALED:
            acc_MD *= tl.load(v_scales + head)
        total_M = tl.where(total_M > 0, total_M, 1.0)  # where nothing is seen most_M is -inf
        acc_MD = acc_MD / total_M[:, None]
        to = item * (ROWS * GROUP) + m.to(tl.int64)
        tl.store(partial_log + to, most_M + tl.log2(total_M), mask=known)
        tl.store(partial + to[:, None] * D + d[None, :], acc_MD, mask=there)


@triton.jit
def combine_kernel(
    partial, partial_log, splits, query_starts, sinks, out, out_row, out_head,
    G: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    SPLITS: tl.constexpr, PADDED: tl.constexpr, SINKS: tl.constexpr,
):  # fmt: skip
    """One row of one query head; a sink takes part here, and only here."""
    request = tl.program_id(0)
    head = tl.program_id(1)
    i = tl.program_id(2)
    row = tl.load(query_starts + request)
    rows = tl.load(query_starts + request + 1) - row
    if (i >= rows) | (rows > ROWS):
        return
    d = tl.arange(0, PADDED)
    first = tl.load(splits + request)
    last = tl.load(splits + request + 1)
    most = float("-inf")
    total = 0.0
    if SINKS:
        most = tl.load(sinks + head).to(tl.float32) * online_softmax.LOG2E
        total = 1.0
    acc_D = tl.zeros([PADDED], tl.float32)
    for begin in range(first, last, SPLITS):
        split = begin + tl.arange(0, SPLITS)
        item = (split * G + head // GROUP).to(tl.int64)
        at = item * (ROWS * GROUP) + i * GROUP + head % GROUP
        log_S = tl.load(partial_log + at, mask=split < last, other=float("-inf"))
        there = (split < last)[:, None] & (d < D)[None, :]
        part_SD = tl.load(partial + at[:, None] * D + d[None, :], mask=there, other=0.0)
        most_now = tl.maximum(most, tl.max(log_S))
        base = tl.where(most_now == float("-inf"), 0.0, most_now)
        weight_S = tl.exp2(log_S - base)
        shrink = tl.exp2(most - base)
        total = total * shrink + tl.sum(weight_S)
        acc_D = acc_D * shrink + tl.sum(part_SD * weight_S[:, None], axis=0)
        most = most_now
    to = out + row.to(tl.int64) * out_row + i * out_row + head * out_head + d
    tl.store(to, (acc_D / total).to(out.dtype.element_ty), mask=d < D)


def decode_attention(
    q_NHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    tasks: DecodeTasks,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
    tuning: DecodeTuning,
    scales: PageScales | None = None,
) -> None:
    """Fills `out_NHD` in the rows of requests of 1 … `tasks.rows` rows, whose keys and values are in their pages already.

    `tasks` must be of this batch, of the rule's window and of the tuning's tile.
    """
    heads_kv, tokens, dim = page_tile.check_pages(q_NHD, pages_B2GTD, scales)
    heads = q_NHD.shape[1]
    group = heads // heads_kv
    m = max(TENSOR_CORE_ROWS, triton.next_power_of_2(tasks.rows * group))
    assert tasks.window == rule.window, (tasks.window, rule.window)
    assert tasks.tile == tuning.tile, (tasks.tile, tuning.tile)
    assert rule.scale > 0, rule.scale
    assert out_NHD.shape == q_NHD.shape, (out_NHD.shape, q_NHD.shape)
    assert out_NHD.stride(2) == 1, out_NHD.stride()
    items = tasks.splits_max * heads_kv * tasks.rows * group
    partial = torch.empty(items, dim, dtype=torch.float32, device=q_NHD.device)
    partial_log = torch.empty(items, dtype=torch.float32, device=q_NHD.device)
    fed = operands(q_NHD.dtype, pages_B2GTD.dtype)
    padded = triton.next_power_of_2(max(dim, 16))
    split_kernel[tasks.programs,](
        q_NHD, pages_B2GTD, scales and scales.k_G, scales and scales.v_G,
        batch.query_starts_R1, batch.tables_RW, tasks.tasks_S4, tasks.shares_P1,
        partial, partial_log, rule.scale, *q_NHD.stride()[:2], pages_B2GTD.stride(0),
        batch.tables_RW.stride(0),
        G=heads_kv, GROUP=group, T=tokens, D=dim, ROWS=tasks.rows, M=m, TILE=tuning.tile,
        PADDED=padded, WINDOW=rule.window, SOFTCAP=rule.softcap, SCALED=scales is not None,
        LEVELLED=fed.levelled, OPERAND=fed.kind, PRECISION=fed.precision, num_warps=tuning.warps, num_stages=tuning.stages,
    )  # fmt: skip
    combine_kernel[batch.requests, heads, tasks.rows](
        partial, partial_log, tasks.splits_R1, batch.query_starts_R1, rule.sinks, out_NHD,
        *out_NHD.stride()[:2], G=heads_kv, GROUP=group, D=dim, ROWS=tasks.rows,
        SPLITS=COMBINED_SPLITS, PADDED=padded, SINKS=rule.sinks is not None,
        num_warps=COMBINING_WARPS,
    )  # fmt: skip


def decode_attention_twin(
    q_NHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    rows: int,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
    scales: PageScales | None = None,
) -> None:
    """The same for requests of 1 … `rows` rows."""
    starts = batch.query_starts_R1.tolist()
    for request, (begin, end) in enumerate(pairwise(starts)):
        if 1 <= end - begin <= rows:
            out_NHD[begin:end] = attend_paged_rows(q_NHD, pages_B2GTD, scales, batch, request, rule)
