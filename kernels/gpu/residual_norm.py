"""Root-mean-square norm, alone or behind the addition of a residual, in one pass over memory.

Legend: N rows, D features. RMSNorm is Zhang and Sennrich, 2019; the twins are `reference.rms_norm` and
`residual_norm_twin`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tercet.kernels import reference

DEPTH_MAX = 32768


class Normed(NamedTuple):
    """What the next layer reads, and the sum that the next residual is added to."""

    normed_ND: torch.Tensor
    sum_ND: torch.Tensor


@triton.jit
def norm_kernel(
    x, residual, scale, out, total, x_row, residual_row, eps,
    D: tl.constexpr, TILE: tl.constexpr, ADD: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, TILE)
    inside = at < D
    y = tl.load(x + n * x_row + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        y += tl.load(residual + n * residual_row + at, mask=inside, other=0.0).to(tl.float32)
        # The norm reads what the residual stream keeps, as it does where the two are separate layers.
        kept = y.to(total.dtype.element_ty)
        tl.store(total + n * D + at, kept, mask=inside)
        y = kept.to(tl.float32)
    factor = tl.rsqrt(tl.sum(y * y, axis=0) / D + eps)
    y = y * factor * tl.load(scale + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + n * D + at, y.to(out.dtype.element_ty), mask=inside)


def rms_norm(x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor:
    """`x / sqrt(mean(x²) + eps) * scale`, computed in fp32; rows may lie at any distance."""
    out_ND = torch.empty(x_ND.shape, dtype=x_ND.dtype, device=x_ND.device)
    _launch(x_ND, x_ND, scale_D, out_ND, out_ND, eps, add=False)
    return out_ND


def residual_norm(
    x_ND: torch.Tensor, residual_ND: torch.Tensor, scale_D: torch.Tensor, eps: float
) -> Normed:
    """The norm of `x + residual`, and that sum, which is rounded to the type of `residual` before it is normed."""
    assert residual_ND.shape == x_ND.shape, (residual_ND.shape, x_ND.shape)
    assert residual_ND.stride(1) == 1, residual_ND.stride()
    out_ND = torch.empty(x_ND.shape, dtype=x_ND.dtype, device=x_ND.device)
    sum_ND = torch.empty(x_ND.shape, dtype=residual_ND.dtype, device=x_ND.device)
    _launch(x_ND, residual_ND, scale_D, out_ND, sum_ND, eps, add=True)
    return Normed(out_ND, sum_ND)


def residual_norm_twin(
    x_ND: torch.Tensor, residual_ND: torch.Tensor, scale_D: torch.Tensor, eps: float
) -> Normed:
    """The twin."""
    sum_ND = (x_ND.float() + residual_ND.float()).to(residual_ND.dtype)
    normed_ND = reference.rms_norm(sum_ND.float(), scale_D.float(), eps)
    return Normed(normed_ND.to(x_ND.dtype), sum_ND)


def warps_for(depth: int) -> int:
    """Some eight elements a thread: enough loads on the way, and few registers."""
    return min(max(1 << (depth - 1).bit_length() >> 8, 1), 16)


def _launch(
    x_ND: torch.Tensor,
    residual_ND: torch.Tensor,
    scale_D: torch.Tensor,
    out_ND: torch.Tensor,
    sum_ND: torch.Tensor,
    eps: float,
    *,
    add: bool,
) -> None:
    rows, depth = x_ND.shape
    assert x_ND.stride(1) == 1, x_ND.stride()
    assert scale_D.shape == (depth,), (scale_D.shape, depth)
    assert scale_D.is_contiguous(), scale_D.stride()
    assert depth <= DEPTH_MAX, depth
    if rows:
        norm_kernel[rows,](
            x_ND, residual_ND, scale_D, out_ND, sum_ND, x_ND.stride(0), residual_ND.stride(0), eps,
            D=depth, TILE=triton.next_power_of_2(depth), ADD=add, num_warps=warps_for(depth),
        )  # fmt: skip
