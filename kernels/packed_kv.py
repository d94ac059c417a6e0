"""What a packed KV block looks like, and what its codes promise.

Legend: B blocks of a pool, N blocks to pack, G groups of a block (layer, keys or values, head), E elements of a group
(tokens and head dim), X bytes of a packed block: G fp32 scales, then G x E codes. Values must be finite.
"""

from enum import IntEnum

import torch

SCALE_BYTES = 4


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


def check(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor
) -> tuple[int, int]:
    """G and E; asserts shapes, types and strides that kernels rely on."""
    _, groups, elements = pages_BGE.shape
    assert pages_BGE.is_contiguous(), pages_BGE.stride()
    assert blocks_N.dtype == torch.int64, blocks_N.dtype
    assert blocks_N.is_contiguous(), blocks_N.stride()
    assert packed_NX.dtype == torch.uint8, packed_NX.dtype
    assert packed_NX.shape == (len(blocks_N), packed_bytes(groups, elements)), packed_NX.shape
    assert packed_NX.stride(1) == 1, packed_NX.stride()
    return groups, elements
