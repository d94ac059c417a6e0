"""The gate of a feed-forward layer: `act(gate) * up`, where both are halves of one merged product.

Legend: N rows, I features of one half. SwiGLU and GEGLU are Shazeer, 2020; GELU is the tanh form of Hendrycks and
Gimpel, 2016. The twin is `gated_twin`.
"""

from enum import StrEnum

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

TILE = 1024


class Gate(StrEnum):
    """What is done to the gate."""

    SILU = "silu"
    GELU_TANH = "gelu_tanh"


@triton.jit
def activate(gate, GELU: tl.constexpr):
    """`act(gate)` for fp32, by a sigmoid whose exponential cannot overflow: 1 + tanh(y) is 2 sigmoid(2y)."""
    slope = gate
    if GELU:
        slope = 1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)  # 2 sqrt(2 / pi)
    small = tl.exp(-tl.abs(slope))
    return gate * (tl.where(slope >= 0, 1.0, small) / (1.0 + small))


@triton.jit
def gated_kernel(x, out, x_row, HALF: tl.constexpr, TILE: tl.constexpr, GELU: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    inside = at < HALF
    gate = tl.load(x + n * x_row + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + n * x_row + HALF + at, mask=inside, other=0.0).to(tl.float32)
    y = activate(gate, GELU) * up
    tl.store(out + n * HALF + at, y.to(out.dtype.element_ty), mask=inside)


def gated(x_N2I: torch.Tensor, gate: Gate) -> torch.Tensor:
    """`act(x[:, :I]) * x[:, I:]`, computed in fp32, as `[N, I]`; rows may lie at any distance."""
    rows, both = x_N2I.shape
    assert both % 2 == 0, both
    assert x_N2I.stride(1) == 1, x_N2I.stride()
    half = both // 2
    out_NI = torch.empty((rows, half), dtype=x_N2I.dtype, device=x_N2I.device)
    if rows:
        tile = min(TILE, triton.next_power_of_2(half))
        gated_kernel[rows, triton.cdiv(half, tile)](
            x_N2I, out_NI, x_N2I.stride(0), HALF=half, TILE=tile, GELU=gate is Gate.GELU_TANH,
        )  # fmt: skip
    return out_NI


def gated_twin(x_N2I: torch.Tensor, gate: Gate) -> torch.Tensor:
    """The twin."""
    wide_NI, up_NI = x_N2I.float().chunk(2, dim=1)
    act_NI = F.silu(wide_NI) if gate is Gate.SILU else F.gelu(wide_NI, approximate="tanh")
    return (act_NI * up_NI).to(x_N2I.dtype)
