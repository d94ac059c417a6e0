"""Products of a few rows with a large weight, which cost what reading the weight costs, with what follows fused in.

Legend: M rows, K features in, N features out, S splits of K, G groups of K.

A program multiplies one tile of the weight's rows, over one part of K, with all rows of x. The weight stands on the left
of the product, so that its rows fill the 64 rows of a wgmma and x needs no padding beyond 16. With S > 1 each program
leaves its part of the sum in scratch memory, and the one that comes last adds the parts up, in order, as the fix-up of
stream-K does (Osama et al., 2023). So a sum is made in one order, which the weight's shape alone decides: no row's
result depends on how many others there are, nor on which program was last. The twin is `skinny_gemm_twin`.

A weight may be 8-bit floats with a scale for each row and group of K: half the bytes are read. It is brought to the type of
x in registers, which is exact, and scales multiply sums in fp32: of a whole row at the end, of a group after each step.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

from tercet.kernels.gpu.gated import Gate, activate, gated_twin

ROWS_MAX = 64
ROWS_MIN = 16  # the narrowest product that tensor cores make
PROGRAMS_AIM = 264  # two for each multiprocessor of an H100 or H200
SPLITS_MAX = 16
K_OF_A_SPLIT_MIN = 512  # with less a program is done when its pipeline has hardly filled
PROGRAMS_ENOUGH = 64  # so many that cutting K costs more than it brings
STAGES_MAX = 8
WHOLE_SHARED_BYTES, HALF_SHARED_BYTES = 200 * 1024, 112 * 1024
"""What the stages of a program may take, where it has a multiprocessor for itself, or two share one."""
GROUP = 128  # K of a group: that of a step, and of the blocks that checkpoints have


@dataclass(frozen=True, slots=True)
class Plan:
    """How a product is cut into programs."""

    tile: int
    """Weight rows of a program, of each half where a gate makes two."""
    depth: int
    """K of one step."""
    splits: int
    stages_max: int = STAGES_MAX
    shared_bytes: int = WHOLE_SHARED_BYTES


def plan_of(outputs: int, k: int, *, gated: bool = False) -> Plan:
    """By the weight's shape alone, because the plan decides the order of sums. Measured on an H200, by bench/tune.py."""
    programs, depth = triton.cdiv(outputs, 64), 128 if k >= 128 else 64
    if programs >= PROGRAMS_ENOUGH:
        return Plan(64, depth, 1, shared_bytes=HALF_SHARED_BYTES if gated else WHOLE_SHARED_BYTES)
    splits = min(SPLITS_MAX, PROGRAMS_AIM // programs, k // K_OF_A_SPLIT_MIN)
    return Plan(64, depth, max(splits, 1), shared_bytes=HALF_SHARED_BYTES)


class Scratch:
    """Memory for parts of sums and for counting who is done; products of one stream can share it."""

    def __init__(self, device: torch.device, programs: int = PROGRAMS_AIM) -> None:
        halves, tile = 2, 64
        parts = programs * halves * tile * ROWS_MAX
        self.parts = torch.empty(parts, dtype=torch.float32, device=device)
        self.done = torch.zeros(programs, dtype=torch.int32, device=device)
        """Zero between products: whoever counts to the end puts it back."""


@triton.jit
def _step(
    acc, weight, scales, rows, columns, x_tile, N, K, w_row, s_row,
    EVEN: tl.constexpr, GROUPED: tl.constexpr,
):  # fmt: skip
    """Adds one step's product; `[TILE, MT]`."""
    at = weight + rows.to(tl.int64)[:, None] * w_row + columns[None, :]
    inside = rows[:, None] < N
    if not EVEN:
        inside &= columns[None, :] < K
    w = tl.load(at, mask=inside, other=0.0, eviction_policy="evict_first").to(x_tile.dtype)
    if GROUPED:
        scale = tl.load(scales + rows * s_row, mask=rows < N, other=0.0)
        return acc + tl.dot(w, x_tile, input_precision="ieee") * scale[:, None]
    return tl.dot(w, x_tile, acc, input_precision="ieee")


@triton.jit(do_not_specialize=["M"])  # it changes from batch to batch
def gemm_kernel(
    x, weight, scales, bias, residual, out, parts, done,
    M, N, x_row, w_row, s_row, s_group, residual_row, out_row,
    K: tl.constexpr, TILE: tl.constexpr, MT: tl.constexpr, DEPTH: tl.constexpr,
    SPLITS: tl.constexpr, GROUPS: tl.constexpr, GATED: tl.constexpr, GELU: tl.constexpr,
    BIAS: tl.constexpr, ADD: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`N` counts the outputs: a gated weight has its gate in the first N rows and up in the next N.

    Triton's interpreter computes wrongly in bf16: there all is fp32.
    """
    tile, split = tl.program_id(0), tl.program_id(1)
    rows = tile * TILE + tl.arange(0, TILE)
    m = tl.arange(0, MT)
    EVEN: tl.constexpr = K % DEPTH == 0
    STEPS: tl.constexpr = (K + DEPTH - 1) // DEPTH
    OF_A_SPLIT: tl.constexpr = (STEPS + SPLITS - 1) // SPLITS
    acc = tl.zeros([TILE, MT], dtype=tl.float32)
    up = acc
    for step in range(split * OF_A_SPLIT, min((split + 1) * OF_A_SPLIT, STEPS)):
        columns = step * DEPTH + tl.arange(0, DEPTH)
        here = m[:, None] < M
        if not EVEN:
            here &= columns[None, :] < K
        x_tile = tl.load(x + m[:, None] * x_row + columns[None, :], mask=here, other=0.0)
        if UPCAST:
            x_tile = x_tile.to(tl.float32)
        x_tile = tl.trans(x_tile)
        of_group = scales + step * s_group
        acc = _step(
            acc, weight, of_group, rows, columns, x_tile, N, K, w_row, s_row, EVEN, GROUPS > 1
        )
        if GATED:
            second, of_group = weight + N.to(tl.int64) * w_row, of_group + N.to(tl.int64) * s_row
            up = _step(
                up, second, of_group, rows, columns, x_tile, N, K, w_row, s_row, EVEN, GROUPS > 1
            )

    if SPLITS > 1:
        area: tl.constexpr = TILE * MT
        inside = tl.arange(0, TILE)[:, None] * MT + m[None, :]
        here = m[None, :] < M
        halves: tl.constexpr = 2 if GATED else 1
        base = parts + tile.to(tl.int64) * (SPLITS * halves * area) + inside
        tl.store(base + split * (halves * area), acc, mask=here)
        if GATED:
            tl.store(base + split * (halves * area) + area, up, mask=here)
        tl.debug_barrier()  # every thread has stored before one of them says so
        if tl.atomic_add(done + tile, 1, sem="acq_rel") != SPLITS - 1:
            return
        tl.store(done + tile, 0)
        acc = tl.zeros([TILE, MT], dtype=tl.float32)
        up = acc
        for s in range(SPLITS):
            acc += tl.load(base + s * (halves * area), mask=here, other=0.0)
            if GATED:
                up += tl.load(base + s * (halves * area) + area, mask=here, other=0.0)

    if GROUPS == 1:
        acc *= tl.load(scales + rows * s_row, mask=rows < N, other=0.0)[:, None]
        if GATED:
            up *= tl.load(scales + (N + rows) * s_row, mask=rows < N, other=0.0)[:, None]
    if BIAS:
        acc += tl.load(bias + rows, mask=rows < N, other=0.0).to(tl.float32)[:, None]
        if GATED:
            up += tl.load(bias + N + rows, mask=rows < N, other=0.0).to(tl.float32)[:, None]
    if GATED:
        acc = activate(acc, GELU) * up
    known = (rows[:, None] < N) & (m[None, :] < M)
    if ADD:
        at = residual + m[None, :] * residual_row + rows[:, None]
        acc += tl.load(at, mask=known, other=0.0).to(tl.float32)
    at = out + m[None, :] * out_row + rows[:, None]
    tl.store(at, acc.to(out.dtype.element_ty), mask=known)


def skinny_gemm(
    x_MK: torch.Tensor,
    weight_NK: torch.Tensor,
    scratch: Scratch,
    *,
    scales_NG: torch.Tensor | None = None,
    bias_N: torch.Tensor | None = None,
    gate: Gate | None = None,
    residual_MN: torch.Tensor | None = None,
    plan: Plan | None = None,
) -> torch.Tensor:
    """`x W^T`, summed in fp32, then bias, gate and residual, rounded once; at most 64 rows.

    With a gate the weight holds gate and up one behind the other, and the result has half as many columns. With scales,
    in fp32, the weight is of 8-bit floats; they are one for a row, or one for every `GROUP` of it, and those of one group
    are best side by side in memory, because a step reads them together.
    """
    rows, k = x_MK.shape
    outputs = len(weight_NK) // 2 if gate else len(weight_NK)
    assert rows <= ROWS_MAX, rows
    assert weight_NK.shape == (outputs * 2 if gate else outputs, k), (weight_NK.shape, x_MK.shape)
    assert x_MK.stride(1) == weight_NK.stride(1) == 1, (x_MK.stride(), weight_NK.stride())
    assert bias_N is None or bias_N.is_contiguous(), bias_N
    assert residual_MN is None or residual_MN.shape == (rows, outputs), residual_MN
    assert residual_MN is None or residual_MN.stride(1) == 1, residual_MN
    out_MN = torch.empty((rows, outputs), dtype=x_MK.dtype, device=x_MK.device)
    if not rows:
        return out_MN
    plan = plan or plan_of(outputs, k, gated=gate is not None)
    groups = 0 if scales_NG is None else scales_NG.shape[1]
    if scales_NG is not None:
        assert scales_NG.dtype == torch.float32, scales_NG.dtype
        assert scales_NG.shape == (len(weight_NK), groups), (scales_NG.shape, weight_NK.shape)
        assert groups == 1 or (plan.depth == GROUP and groups == triton.cdiv(k, GROUP)), groups
    tiles, width = triton.cdiv(outputs, plan.tile), max(ROWS_MIN, triton.next_power_of_2(rows))
    halves = 2 if gate else 1
    weight_bytes = halves * plan.tile * weight_NK.element_size()
    step_bytes = (weight_bytes + width * x_MK.element_size()) * plan.depth
    gemm_kernel[tiles, plan.splits](
        x_MK, weight_NK, x_MK if scales_NG is None else scales_NG,
        x_MK if bias_N is None else bias_N, x_MK if residual_MN is None else residual_MN,
        out_MN, scratch.parts, scratch.done,
        rows, outputs, x_MK.stride(0), weight_NK.stride(0),
        *((0, 0) if scales_NG is None else scales_NG.stride()),
        0 if residual_MN is None else residual_MN.stride(0), out_MN.stride(0),
        K=k, TILE=plan.tile, MT=width, DEPTH=plan.depth, SPLITS=plan.splits, GROUPS=groups,
        GATED=gate is not None, GELU=gate is Gate.GELU_TANH, BIAS=bias_N is not None,
        ADD=residual_MN is not None, UPCAST=triton.knobs.runtime.interpret,
        num_warps=4,
        num_stages=min(max(plan.shared_bytes // step_bytes, 2), plan.stages_max),
    )  # fmt: skip
    return out_MN


def skinny_gemm_twin(
    x_MK: torch.Tensor,
    weight_NK: torch.Tensor,
    *,
    scales_NG: torch.Tensor | None = None,
    bias_N: torch.Tensor | None = None,
    gate: Gate | None = None,
    residual_MN: torch.Tensor | None = None,
) -> torch.Tensor:
    """The twin."""
    bias, weight_NK = None if bias_N is None else bias_N.float(), weight_NK.float()
    if scales_NG is not None:
        group = weight_NK.shape[1] if scales_NG.shape[1] == 1 else GROUP
        wide_NK = scales_NG.repeat_interleave(group, 1)[:, : weight_NK.shape[1]]
        weight_NK = weight_NK * wide_NK
    y_MN = F.linear(x_MK.float(), weight_NK, bias)
    if gate is not None:
        y_MN = gated_twin(y_MN, gate)
    if residual_MN is not None:
        y_MN = y_MN + residual_MN.float()
    return y_MN.to(x_MK.dtype)
