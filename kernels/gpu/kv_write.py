"""Writes the keys and values of new rows into their pages, and does nothing else.

Legend: N rows, G key/value heads, D head dim, B pages, T tokens of a page. The twin is `kv_write_twin`.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.page_scales import QUANTISED, PageScales
from tercet.kernels.kv_codec_triton import encode

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@triton.jit
def _stored(x_GD, scales, heads, CODED: tl.constexpr, FP8: tl.constexpr, G: tl.constexpr):
    if CODED:
        scale_G1 = tl.load(scales + heads, mask=heads < G, other=1.0)
        return encode(x_GD.to(tl.float32) / scale_G1, FP8)
    else:
        return x_GD


@triton.jit(do_not_specialize=["table_row"])  # it changes from step to step
def kv_write_kernel(
    k, v, pages, k_scales, v_scales, positions, requests, tables,
    k_row, k_head, v_row, v_head, page_stride, table_row,
    G: tl.constexpr, T: tl.constexpr, D: tl.constexpr, HEADS: tl.constexpr, PADDED: tl.constexpr,
    CODED: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + row)
    if position < 0:
        return
    request = tl.load(requests + row).to(tl.int64)
    page = tl.load(tables + request * table_row + position // T).to(tl.int64)
    heads = tl.arange(0, HEADS)[:, None]
    d = tl.arange(0, PADDED)[None, :]
    known = (heads < G) & (d < D)
    to = pages + page * page_stride + heads * (T * D) + (position % T) * D + d
    k_GD = tl.load(k + row * k_row + heads * k_head + d, mask=known, other=0.0)
    tl.store(to, _stored(k_GD, k_scales, heads, CODED, FP8, G), mask=known)
    v_GD = tl.load(v + row * v_row + heads * v_head + d, mask=known, other=0.0)
    tl.store(to + G * T * D, _stored(v_GD, v_scales, heads, CODED, FP8, G), mask=known)


def kv_write(
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    scales: PageScales | None = None,
) -> None:
    """Pages are of the type of `k_NGD`, or take codes with `scales`; what a code cannot reach becomes the nearest one."""
    rows, heads_kv, dim = k_NGD.shape
    tokens = pages_B2GTD.shape[3]
    inner = (heads_kv * tokens * dim, tokens * dim, dim, 1)
    assert pages_B2GTD.shape[1:] == (2, heads_kv, tokens, dim), (pages_B2GTD.shape, k_NGD.shape)
    assert pages_B2GTD.stride()[1:] == inner, pages_B2GTD.stride()
    assert v_NGD.shape == k_NGD.shape, (k_NGD.shape, v_NGD.shape)
    assert k_NGD.stride(2) == v_NGD.stride(2) == 1, (k_NGD.stride(), v_NGD.stride())
    assert batch.rows == rows, (batch.rows, rows)
    coded = pages_B2GTD.dtype in QUANTISED
    assert coded == (scales is not None), pages_B2GTD.dtype
    assert coded or pages_B2GTD.dtype == k_NGD.dtype, (pages_B2GTD.dtype, k_NGD.dtype)
    kv_write_kernel[rows,](
        k_NGD, v_NGD, pages_B2GTD.view(torch.uint8) if coded else pages_B2GTD,
        scales and scales.k_G, scales and scales.v_G,
        batch.positions_N, batch.requests_N, batch.tables_RW,
        *k_NGD.stride()[:2], *v_NGD.stride()[:2], pages_B2GTD.stride(0), batch.tables_RW.stride(0),
        G=heads_kv, T=tokens, D=dim, HEADS=triton.next_power_of_2(heads_kv),
        PADDED=triton.next_power_of_2(dim), CODED=coded,
        FP8=pages_B2GTD.dtype == torch.float8_e4m3fn,
    )  # fmt: skip


def kv_write_twin(
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: DeviceBatch,
    scales: PageScales | None = None,
) -> None:
    """The same."""
    real = batch.positions_N >= 0
    positions, requests = batch.positions_N[real].long(), batch.requests_N[real].long()
    tokens, kind = pages_B2GTD.shape[3], pages_B2GTD.dtype
    pages = batch.tables_RW[requests, positions // tokens].long()
    kv_2NGD = torch.stack([k_NGD[real], v_NGD[real]])
    if scales is not None:
        kv_2NGD = kv_2NGD.float() / torch.stack([scales.k_G, scales.v_G])[:, None, :, None]
        kv_2NGD = kv_2NGD.clamp(-LARGEST[kind], LARGEST[kind])
        kv_2NGD = kv_2NGD.round() if kind == torch.int8 else kv_2NGD
    for part, x_NGD in enumerate(kv_2NGD.to(kind)):
        pages_B2GTD[pages, part, :, positions % tokens] = x_NGD
