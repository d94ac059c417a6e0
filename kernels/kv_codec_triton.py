"""Packing KV on a GPU: one program a group, gathered from its block and written packed in one pass over memory.

Legend and layout: `packed_kv`. Codes are made with integer arithmetic, because not every GPU that Triton knows converts to
e4m3, and those of another make mean another e4m3.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.packed_kv import Codes, check

TINY = tl.constexpr(1e-30)
ROUND = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it rounds to an integer, ties to even


@triton.jit
def encode(y, FP8: tl.constexpr):
    if FP8:
        size = tl.minimum(tl.abs(y), 448.0)
        bits = size.to(tl.int32, bitcast=True)
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
        subnormal = (size * 512.0 + ROUND).to(tl.int32, bitcast=True) & 0xFF
        sign = (y.to(tl.int32, bitcast=True) >> 24) & 0x80
        code = tl.where(size < 0.015625, subnormal, normal) | sign
    else:
        clamped = tl.minimum(tl.maximum(y, -127.0), 127.0)
        code = (clamped + ROUND).to(tl.int32, bitcast=True) & 0xFF
    return code.to(tl.uint8)


@triton.jit
def decode(code, FP8: tl.constexpr):
    wide = code.to(tl.int32)
    if FP8:
        size = wide & 0x7F
        normal = ((size << 20) + (120 << 23)).to(tl.float32, bitcast=True)
        value = tl.where(size < 8, size.to(tl.float32) * 0.001953125, normal)
        value = tl.where(wide >= 128, -value, value)
    else:
        value = tl.where(wide >= 128, wide - 256, wide).to(tl.float32)
    return value


@triton.jit
def pack_kernel(
    pages, blocks, packed, groups, packed_stride, INVERSE_LARGEST: tl.constexpr,
    E: tl.constexpr, TILE: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1)
    block = tl.load(blocks + n)
    at = tl.arange(0, TILE)
    x = tl.load(pages + (block * groups + g) * E + at, mask=at < E, other=0.0).to(tl.float32)
    most = tl.max(tl.abs(x), axis=0)
    scale = tl.where(most > TINY, most * INVERSE_LARGEST, 0.0)
    inverse = tl.where(most > TINY, 1.0 / tl.where(most > TINY, scale, 1.0), 0.0)
    to = packed + n * packed_stride
    tl.store(to.to(tl.pointer_type(tl.float32)) + g, scale)
    tl.store(to + 4 * groups + g * E + at, encode(x * inverse, FP8), mask=at < E)


@triton.jit
def unpack_kernel(
    pages, blocks, packed, groups, packed_stride,
    E: tl.constexpr, TILE: tl.constexpr, FP8: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1)
    block = tl.load(blocks + n)
    at = tl.arange(0, TILE)
    source = packed + n * packed_stride
    scale = tl.load(source.to(tl.pointer_type(tl.float32)) + g)
    code = tl.load(source + 4 * groups + g * E + at, mask=at < E, other=0)
    x = decode(code, FP8) * scale
    tl.store(pages + (block * groups + g) * E + at, x.to(pages.dtype.element_ty), mask=at < E)


class TritonKvCodec:
    """On the current stream; returns before it is done. Packed rows must start at multiples of 4 bytes."""

    def pack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None:
        groups, elements = _checked(pages_BGE, blocks_N, packed_NX)
        if len(blocks_N):
            pack_kernel[len(blocks_N), groups](
                pages_BGE, blocks_N, packed_NX, groups, packed_NX.stride(0),
                INVERSE_LARGEST=1.0 / codes.largest, E=elements,
                TILE=triton.next_power_of_2(elements), FP8=codes is Codes.FP8,
            )  # fmt: skip

    def unpack(
        self, pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
    ) -> None:
        groups, elements = _checked(pages_BGE, blocks_N, packed_NX)
        if len(blocks_N):
            unpack_kernel[len(blocks_N), groups](
                pages_BGE, blocks_N, packed_NX, groups, packed_NX.stride(0), E=elements,
                TILE=triton.next_power_of_2(elements), FP8=codes is Codes.FP8,
            )  # fmt: skip


def _checked(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> tuple[int, int]:
    assert packed_NX.data_ptr() % 4 == packed_NX.stride(0) % 4 == 0, "scales would be misaligned"
    return check(pages_BGE, blocks_N, packed_NX)
