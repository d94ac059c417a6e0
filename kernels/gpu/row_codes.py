"""Rows rounded to 8-bit floats, each with a scale of its own, for a product in 8 bits.

Legend: M rows, K features. The twin is `row_codes_twin`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tercet.kernels.kv_codec_triton import encode

DEPTH_MAX = 32768
CODE_MAX = 448.0  # the largest of e4m3
LARGEST_MIN = 1e-12  # of a row of zeros, so that nothing is divided by zero


class RowCodes(NamedTuple):
    """`codes * scales` is nearly what was rounded."""

    codes_MK: torch.Tensor
    scales_M1: torch.Tensor


@triton.jit
def row_codes_kernel(
    x, codes, scales, x_row, K: tl.constexpr, TILE: tl.constexpr, MAX: tl.constexpr,
    LEAST: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, TILE)
    inside = at < K
    y = tl.load(x + m * x_row + at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(y), axis=0), LEAST) / MAX
    tl.store(codes + m * K + at, encode(y / scale, True), mask=inside)
    tl.store(scales + m, scale)


def row_codes(x_MK: torch.Tensor) -> RowCodes:
    """Each row divided by its scale, which brings its largest element to the largest code; rows may lie at any distance."""
    rows, k = x_MK.shape
    assert x_MK.stride(1) == 1, x_MK.stride()
    assert k <= DEPTH_MAX, k
    codes_MK = torch.empty((rows, k), dtype=torch.float8_e4m3fn, device=x_MK.device)
    scales_M1 = torch.empty((rows, 1), dtype=torch.float32, device=x_MK.device)
    if rows:
        tile = triton.next_power_of_2(k)
        row_codes_kernel[rows,](
            x_MK, codes_MK.view(torch.uint8), scales_M1, x_MK.stride(0), K=k, TILE=tile, MAX=CODE_MAX,
            LEAST=LARGEST_MIN, num_warps=min(max(tile // 1024, 1), 16),
        )  # fmt: skip
    return RowCodes(codes_MK, scales_M1)


def row_codes_twin(x_MK: torch.Tensor) -> RowCodes:
    """The twin."""
    x_MK = x_MK.float()
    scales_M1 = x_MK.abs().amax(1, keepdim=True).clamp(min=LARGEST_MIN) / CODE_MAX
    codes_MK = (x_MK / scales_M1).clamp(-CODE_MAX, CODE_MAX).to(torch.float8_e4m3fn)
    return RowCodes(codes_MK, scales_M1)
