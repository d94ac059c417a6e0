"""What tensor cores are fed with."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

KINDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Operands(NamedTuple):
    """`kind` is what keys, values, queries and weights are converted to right after they are loaded or made.

    `levelled` rows of queries are divided by their largest element first, and their scores multiplied by it.
    """

    kind: tl.dtype
    precision: str
    levelled: bool


def operands(queries: torch.dtype, pages: torch.dtype) -> Operands:
    """For queries and pages of these types.

    From e4m3 a GPU gets to fp16 four times as fast as to bf16, and exactly; int8 it is that gets to bf16 fast. Triton's
    interpreter computes wrongly in bf16: there all is fp32.
    """
    levelled = pages == torch.float8_e4m3fn and queries == torch.bfloat16
    if triton.knobs.runtime.interpret or queries == torch.float32:
        return Operands(tl.float32, "ieee", levelled)
    return Operands(tl.float16 if levelled else KINDS[queries], "tf32", levelled)
