"""What a packed KV block looks like, and what its codes promise.

Legend: B blocks of a pool, N blocks to pack, G groups of a block (layer, keys or values, head), E elements of a group
(tokens and head dim), X bytes of a packed block: G fp32 scales, then G x E codes. Values must be finite.

Codes of four bits have a scale for every run of 64 elements: first all scales, then 32 bytes a run, of which byte j holds
element j in its low half and element j + 32 in its high half, each a signed number of -7 to 7. They err by at most 1/14
of the run's largest element.
"""

from enum import IntEnum

import torch

SCALE_BYTES = 4
INT4_RUN = 64
"""Elements that share a scale where codes have four bits; E is a multiple of it."""


class Codes(IntEnum):
    """What a code means; the number is the kernels'.

    `INT8` errs by at most 1/254 of its group's largest element. `FP8` (e4m3) errs by at most 1/16 of the element itself,
    or by 1/458,752 of the largest where elements are that small.
    """

    INT8 = 0
    FP8 = 1

    @property
    def largest(self) -> float:
        """The largest code's value: what the group's largest element becomes."""
        return 127.0 if self is Codes.INT8 else 448.0


def packed_bytes(groups: int, elements: int) -> int:
    """X: what one block of `groups` groups takes when packed."""
    return groups * (SCALE_BYTES + elements)


def packed_int4_bytes(groups: int, elements: int) -> int:
    """X, where codes have four bits."""
    assert elements % INT4_RUN == 0, elements
    return groups * elements // INT4_RUN * (SCALE_BYTES + INT4_RUN // 2)


def check(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> tuple[int, int]:
    """G and E; asserts shapes, types and strides that kernels rely on."""
    _, groups, elements = pages_BGE.shape
    _check(pages_BGE, blocks_N, packed_NX, packed_bytes(groups, elements))
    return groups, elements


def check_int4(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> tuple[int, int]:
    """The same where codes have four bits."""
    _, groups, elements = pages_BGE.shape
    _check(pages_BGE, blocks_N, packed_NX, packed_int4_bytes(groups, elements))
    return groups, elements


def _check(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, nbytes: int
) -> None:
    assert pages_BGE.is_contiguous(), pages_BGE.stride()
    assert blocks_N.dtype == torch.int64, blocks_N.dtype
    assert blocks_N.is_contiguous(), blocks_N.stride()
    assert packed_NX.dtype == torch.uint8, packed_NX.dtype
    assert packed_NX.shape == (len(blocks_N), nbytes), packed_NX.shape
    assert packed_NX.stride(1) == 1, packed_NX.stride()
