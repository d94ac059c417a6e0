"""Attention of requests that begin with their new rows, over the keys and values as the layer made them: no pages are read.

Legend: N rows of all requests, H query heads, G key/value heads, D head dim, M rows of a tile: the query heads of one
key/value head, for as many tokens as fit.

FlashAttention-2 (arXiv 2307.08691) with keys and values fetched by TMA. Its sums are those of `chunk_attention` with the same
`tile`, in the same order, so a row's bits do not depend on the batch, nor on whether its prompt was computed at once or in
chunks. (Where pages hold codes they do: here keys and values have not been through them.)
The twin is `fresh_attention_twin`.
"""

from itertools import pairwise

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from tercet.kernels.gpu import online_softmax
from tercet.kernels.gpu.attend_rows import attend_rows
from tercet.kernels.gpu.attention_tuning import PrefillTuning
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.operands import operands
from tercet.kernels.gpu.query_tiles import QueryTiles
from tercet.kernels.softmax_rule import SoftmaxRule

TMA_BYTES = 16
"""What addresses and strides of keys and values must be multiples of."""


@triton.jit
def fresh_kernel(
    q, k, v, values, sinks, out, query_starts, tiles, scale, q_row, q_head, v_row, v_head, out_row, out_head,
    GROUP: tl.constexpr, D: tl.constexpr, TOKENS: tl.constexpr, M: tl.constexpr,
    TILE: tl.constexpr, PADDED: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """`TOKENS` rows of one request, for the query heads of one key/value head. `k` and `v` are descriptors; `values` is `v`."""
    request = tl.load(tiles + tl.program_id(1) * 2)
    if request < 0:
        return
    first = tl.load(tiles + tl.program_id(1) * 2 + 1)
    head = tl.program_id(0)
    start = tl.load(query_starts + request)
    length = tl.load(query_starts + request + 1) - start
    rows = tl.minimum(length - first, TOKENS)
    m = tl.arange(0, M)
    d = tl.arange(0, PADDED)
    heads_M = head * GROUP + m % GROUP
    rows_M = (start + first + m // GROUP).to(tl.int64)
    known = m // GROUP < rows
    there = known[:, None] & (d < D)[None, :]
    at = rows_M * q_row + heads_M * q_head
    q_MD = tl.load(q + at[:, None] + d[None, :], mask=there, other=0.0)
    q_MD, factor_M = online_softmax.queries(q_MD, scale, False, OPERAND, M)
    last_M = first + tl.minimum(m // GROUP, rows - 1)
    most_M, total_M, acc_MD = online_softmax.begin(sinks, heads_M, known, SINKS, M, PADDED)
    values += head * v_head
    end = first + rows
    begin = 0
    whole_end = (first + 1) // TILE * TILE
    if WINDOW:
        begin = tl.maximum(first + 1 - WINDOW, 0) // TILE * TILE
        whole_end = begin  # the window's lower end cuts into whole tiles too: all are masked

    for position in range(begin, whole_end, TILE):
        k_KD = k.load([start + position, head, 0]).reshape(TILE, PADDED).to(OPERAND)
        scores_MK = tl.dot(q_MD, tl.trans(k_KD), input_precision=PRECISION)
        scores_MK, unit_M = online_softmax.capped(scores_MK, factor_M, SOFTCAP, M)
        v_KD = v.load([start + position, head, 0]).reshape(TILE, PADDED).to(OPERAND)
        most_M, total_M, acc_MD = online_softmax.fold(
            scores_MK, unit_M, v_KD, most_M, total_M, acc_MD, False, OPERAND, PRECISION
        )
    for position in range(whole_end, end, TILE):
        key_K = position + tl.arange(0, TILE)
        k_KD = k.load([start + position, head, 0]).reshape(TILE, PADDED).to(OPERAND)
        scores_MK = tl.dot(q_MD, tl.trans(k_KD), input_precision=PRECISION)
        scores_MK, unit_M = online_softmax.capped(scores_MK, factor_M, SOFTCAP, M)
        scores_MK = online_softmax.hidden(scores_MK, key_K, last_M, WINDOW)
        # Behind the last row stand values of another request, whose NaN a weight of 0 would let through.
        v_at = values + (start + key_K).to(tl.int64)[:, None] * v_row + d[None, :]
        inside = (key_K < end)[:, None] & (d < D)[None, :]
        v_KD = tl.load(v_at, mask=inside, other=0.0).to(OPERAND)
        most_M, total_M, acc_MD = online_softmax.fold(
            scores_MK, unit_M, v_KD, most_M, total_M, acc_MD, WINDOW > 0, OPERAND, PRECISION
        )
    to = rows_M * out_row + heads_M * out_head
    out_MD = (acc_MD / total_M[:, None]).to(out.dtype.element_ty)
    tl.store(out + to[:, None] + d[None, :], out_MD, mask=there)


def fresh_attention(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    batch: DeviceBatch,
    tiles: QueryTiles,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
    tuning: PrefillTuning,
) -> None:
    """Fills `out_NHD` in the rows that are in `tiles`: requests without context, in tiles of `tuning.rows // (H / G)` rows."""
    _, heads, dim = q_NHD.shape
    heads_kv = k_NGD.shape[1]
    group = heads // heads_kv
    _check(q_NHD, k_NGD, v_NGD, out_NHD)
    assert tiles.tile_rows == tuning.rows // group, (tiles.tile_rows, tuning.rows, group)
    assert rule.scale > 0, rule.scale
    padded = triton.next_power_of_2(max(dim, 16))
    k, v = (TensorDescriptor.from_tensor(x, [tuning.tile, 1, padded]) for x in (k_NGD, v_NGD))
    fed = operands(q_NHD.dtype, k_NGD.dtype)
    fresh_kernel[heads_kv, len(tiles.tiles_M2)](
        q_NHD, k, v, v_NGD, rule.sinks, out_NHD, batch.query_starts_R1, tiles.tiles_M2, rule.scale,
        *q_NHD.stride()[:2], *v_NGD.stride()[:2], *out_NHD.stride()[:2],
        GROUP=group, D=dim, TOKENS=tiles.tile_rows, M=tuning.rows, TILE=tuning.tile,
        PADDED=padded, WINDOW=rule.window, SOFTCAP=rule.softcap, SINKS=rule.sinks is not None,
        OPERAND=fed.kind, PRECISION=fed.precision,
        num_warps=tuning.warps, num_stages=tuning.stages,
    )  # fmt: skip


def can_fetch(k_NGD: torch.Tensor) -> bool:
    """Whether TMA can read keys or values that lie like this."""
    row, head, one = k_NGD.stride()
    size = k_NGD.element_size()
    return one == 1 and not any(x % TMA_BYTES for x in (k_NGD.data_ptr(), row * size, head * size))


def fresh_attention_twin(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    batch: DeviceBatch,
    skipped: int,
    rule: SoftmaxRule,
    out_NHD: torch.Tensor,
) -> None:
    """The same for requests of more than `skipped` rows."""
    starts = batch.query_starts_R1.tolist()
    for begin, end in pairwise(starts):
        if end - begin > skipped:
            run = slice(begin, end)
            out_NHD[run] = attend_rows(q_NHD[run], k_NGD[run], v_NGD[run], rule)


def _check(
    q_NHD: torch.Tensor, k_NGD: torch.Tensor, v_NGD: torch.Tensor, out_NHD: torch.Tensor
) -> None:
    rows, heads, dim = q_NHD.shape
    heads_kv = k_NGD.shape[1]
    assert k_NGD.shape == v_NGD.shape == (rows, heads_kv, dim), (k_NGD.shape, v_NGD.shape)
    assert heads % heads_kv == 0, (heads, heads_kv)
    assert q_NHD.stride(2) == out_NHD.stride(2) == 1, (q_NHD.stride(), out_NHD.stride())
    assert out_NHD.shape == q_NHD.shape, (out_NHD.shape, q_NHD.shape)
    for x in (k_NGD, v_NGD):
        assert x.dtype == q_NHD.dtype, (x.dtype, q_NHD.dtype)
        assert can_fetch(x), (x.data_ptr(), x.stride())
