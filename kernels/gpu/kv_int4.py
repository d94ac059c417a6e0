"""KV blocks packed to four bits an element, and back: 0.28 of bf16, for links so slow that accuracy is given for it.

Legend and layout: `packed_kv`; U runs of 64 elements in a block. The twins are `pack_int4_twin` and
`unpack_int4_twin`.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.packed_kv import INT4_RUN, SCALE_BYTES, check_int4

RUNS_OF_A_PROGRAM = 64
LARGEST = 7

HALF = tl.constexpr(INT4_RUN // 2)
TINY = tl.constexpr(1e-30)
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer, ties to even


@triton.jit
def _nibble(x, inverse):
    y = tl.minimum(tl.maximum(x * inverse[:, None], -7.0), 7.0)
    return (y + ROUND).to(tl.int32, bitcast=True) & 0xF


@triton.jit
def _value(nibble, kind: tl.constexpr, scale):
    return (((nibble ^ 8) - 8).to(tl.float32) * scale[:, None]).to(kind)


@triton.jit
def pack_int4_kernel(pages, blocks, packed, packed_stride, U, RUNS: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    runs = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    inside = (runs < U)[:, None]
    element = runs[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]
    source = pages + tl.load(blocks + n) * U * (2 * HALF) + element
    low = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(source + HALF, mask=inside, other=0.0).to(tl.float32)
    most = tl.maximum(tl.max(tl.abs(low), axis=1), tl.max(tl.abs(high), axis=1))
    scale = tl.where(most > TINY, most * (1.0 / 7.0), 0.0)
    inverse = tl.where(most > TINY, tl.div_rn(1.0, tl.where(most > TINY, scale, 1.0)), 0.0)
    to = packed + n * packed_stride
    tl.store(to.to(tl.pointer_type(tl.float32)) + runs, scale, mask=runs < U)
    code = _nibble(low, inverse) | (_nibble(high, inverse) << 4)
    place = 4 * U + runs[:, None] * HALF + tl.arange(0, HALF)[None, :]
    tl.store(to + place, code.to(tl.uint8), mask=inside)


@triton.jit
def unpack_int4_kernel(pages, blocks, packed, packed_stride, U, RUNS: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    runs = tl.program_id(1) * RUNS + tl.arange(0, RUNS)
    inside = (runs < U)[:, None]
    source = packed + n * packed_stride
    scale = tl.load(source.to(tl.pointer_type(tl.float32)) + runs, mask=runs < U, other=0.0)
    place = 4 * U + runs[:, None] * HALF + tl.arange(0, HALF)[None, :]
    code = tl.load(source + place, mask=inside, other=0).to(tl.int32)
    element = runs[:, None] * (2 * HALF) + tl.arange(0, HALF)[None, :]
    to = pages + tl.load(blocks + n) * U * (2 * HALF) + element
    kind = pages.dtype.element_ty
    tl.store(to, _value(code & 0xF, kind, scale), mask=inside)
    tl.store(to + HALF, _value(code >> 4, kind, scale), mask=inside)


def pack_int4(pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor) -> None:
    """Blocks of a pool, packed one behind the other in the order of `blocks_N`; rows start at multiples of 4 bytes."""
    runs = _runs(pages_BGE, blocks_N, packed_NX)
    if len(blocks_N):
        pack_int4_kernel[len(blocks_N), triton.cdiv(runs, RUNS_OF_A_PROGRAM)](
            pages_BGE, blocks_N, packed_NX, packed_NX.stride(0), runs, RUNS=RUNS_OF_A_PROGRAM
        )


def unpack_int4(pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor) -> None:
    """Writes packed blocks into a pool."""
    runs = _runs(pages_BGE, blocks_N, packed_NX)
    if len(blocks_N):
        unpack_int4_kernel[len(blocks_N), triton.cdiv(runs, RUNS_OF_A_PROGRAM)](
            pages_BGE, blocks_N, packed_NX, packed_NX.stride(0), runs, RUNS=RUNS_OF_A_PROGRAM
        )


def _runs(pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor) -> int:
    groups, elements = check_int4(pages_BGE, blocks_N, packed_NX)
    assert packed_NX.data_ptr() % 4 == packed_NX.stride(0) % 4 == 0, "scales would be misaligned"
    return groups * elements // INT4_RUN


def pack_int4_twin(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> None:
    """The twin."""
    runs = _runs(pages_BGE, blocks_N, packed_NX)
    x_NUR = pages_BGE[blocks_N].float().view(-1, runs, INT4_RUN)
    most_NU1 = x_NUR.abs().amax(-1, keepdim=True)
    scale_NU1 = torch.where(most_NU1 > 1e-30, most_NU1 * (1 / LARGEST), 0.0)
    inverse_NU1 = torch.where(scale_NU1 > 0, 1 / scale_NU1, 0.0)
    code = (x_NUR * inverse_NU1).clamp(-LARGEST, LARGEST).round().int() & 0xF
    low, high = code.chunk(2, dim=-1)
    packed_NX[:, : SCALE_BYTES * runs] = scale_NU1.flatten(1).view(torch.uint8)
    packed_NX[:, SCALE_BYTES * runs :] = (low | high << 4).to(torch.uint8).flatten(1)


def unpack_int4_twin(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> None:
    """The twin."""
    runs = _runs(pages_BGE, blocks_N, packed_NX)
    scale_NU = packed_NX[:, : SCALE_BYTES * runs].contiguous().view(torch.float32)
    code = packed_NX[:, SCALE_BYTES * runs :].reshape(-1, runs, INT4_RUN // 2).int()
    nibble = torch.cat([code & 0xF, code >> 4], dim=-1)
    x_NUR = ((nibble ^ 8) - 8).float() * scale_NU[..., None]
    pages_BGE[blocks_N] = x_NUR.to(pages_BGE.dtype).view(-1, *pages_BGE.shape[1:])
