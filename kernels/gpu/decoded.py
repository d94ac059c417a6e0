"""A weight of 8-bit floats written out in another type, for a product that wants it plain.

Legend: N rows, K features, G groups of K. The twin is `decoded_twin`.
"""

import torch
import triton
import triton.language as tl

TILE = 1024


@triton.jit
def decoded_kernel(
    codes, scales, out, codes_row, s_row, s_group, K: tl.constexpr, GROUP: tl.constexpr,
    TILE: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < K
    y = tl.load(codes + n * codes_row + at, mask=inside, other=0.0).to(tl.float32)
    y *= tl.load(scales + n * s_row + at // GROUP * s_group, mask=inside, other=0.0)
    tl.store(out + n * K + at, y.to(out.dtype.element_ty), mask=inside)


def decoded(
    codes_NK: torch.Tensor, scales_NG: torch.Tensor, group: int, dtype: torch.dtype
) -> torch.Tensor:
    """`codes[n, k] * scales[n, k // group]`, rounded once; rows may lie at any distance, and scales anyhow."""
    rows, k = codes_NK.shape
    assert scales_NG.shape == (rows, triton.cdiv(k, group)), (scales_NG.shape, codes_NK.shape)
    assert codes_NK.stride(1) == 1, codes_NK.stride()
    out_NK = torch.empty((rows, k), dtype=dtype, device=codes_NK.device)
    tile = min(TILE, triton.next_power_of_2(k))
    decoded_kernel[rows, triton.cdiv(k, tile)](
        codes_NK, scales_NG, out_NK, codes_NK.stride(0), *scales_NG.stride(),
        K=k, GROUP=group, TILE=tile,
    )  # fmt: skip
    return out_NK


def decoded_twin(
    codes_NK: torch.Tensor, scales_NG: torch.Tensor, group: int, dtype: torch.dtype
) -> torch.Tensor:
    """The twin."""
    wide_NK = scales_NG.repeat_interleave(group, 1)[:, : codes_NK.shape[1]]
    return (codes_NK.float() * wide_NK).to(dtype)
