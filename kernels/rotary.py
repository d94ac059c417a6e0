"""Rotary positions of queries and keys in one call, in place, with the norms that some families have before them.

Legend: N rows, H query heads, G key heads, W places of a row, D head dim, F turned pairs (2F <= D), S positions.
RoFormer's rotation (Su et al., 2021) in GPT-NeoX's layout: feature f turns with f + F. The plain-torch twin is `reference.rotary`.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from tercet.kernels.compiler import load_library
from tercet.kernels.paged_batch import Ints

SOURCE = Path(__file__).with_name("rotary.cpp")
HEAD_DIM_MAX = 256
SYMBOLS = {torch.float32: "tercet_rotary_f32", torch.bfloat16: "tercet_rotary_bf16"}

Turn = Callable[[int, int, int], None]
"""Addresses of rows and of their positions (int32), and how many rows there are."""


@dataclass(frozen=True, slots=True)
class Heads:
    """What a layer's rows consist of: query heads, key heads, and more that stays as it is. Constant over a model's life."""

    queries: int
    keys: int
    dim: int
    row: int
    """From one row to the next, in elements."""
    cos_sin_S2F: torch.Tensor
    """fp32: the cosines of each position's angles, then their sines."""
    q_scale_D: torch.Tensor | None = None
    """fp32, of the norm that queries go through first; keys have one too, or neither."""
    k_scale_D: torch.Tensor | None = None
    eps: float = 0.0


class _Heads(ctypes.Structure):
    """Mirror of `Heads` in the source, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cos_sin", "q_scale", "k_scale")),
        ("row", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("q_heads", "k_heads", "dim", "pairs", "threads")),
        ("eps", ctypes.c_float),
    )


class NativeRotary:
    """The C++ kernel for one element type. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, threads: int = 1, cache: Path | None = None) -> None:
        self.dtype, self.threads = dtype, threads
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        pointer = ctypes.c_void_p
        self._kernel.argtypes = [pointer, pointer, ctypes.c_int64, pointer]

    def __call__(self, x_NW: torch.Tensor, positions_N: Ints, heads: Heads) -> None:
        """Turns the rows in place."""
        assert x_NW.dtype == self.dtype, x_NW.dtype
        assert x_NW.stride() == (heads.row, 1), (x_NW.stride(), heads.row)
        assert positions_N.shape == (len(x_NW),), (positions_N.shape, len(x_NW))
        assert positions_N.dtype == np.int32, positions_N.dtype
        assert positions_N.max() < len(heads.cos_sin_S2F), "a position without an angle"
        self.bind(heads)(x_NW.data_ptr(), positions_N.ctypes.data, len(x_NW))

    def bind(self, heads: Heads) -> Turn:
        """What turns rows of this form, which is checked here, once; its tensors must stay where they are."""
        dim, pairs = heads.dim, heads.cos_sin_S2F.shape[1] // 2
        assert 2 * pairs <= dim <= HEAD_DIM_MAX, (pairs, dim)
        assert (heads.queries + heads.keys) * dim <= heads.row, heads
        scales = (heads.q_scale_D, heads.k_scale_D)
        assert (scales[0] is None) == (scales[1] is None), "only one of queries and keys has a norm"
        for tensor in (heads.cos_sin_S2F, *scales):
            assert tensor is None or (tensor.dtype == torch.float32 and tensor.is_contiguous())
        for scale in scales:
            assert scale is None or scale.shape == (dim,), scale.shape
        arguments = _Heads(
            *(None if t is None else t.data_ptr() for t in (heads.cos_sin_S2F, *scales)),
            *(heads.row, heads.queries, heads.keys, dim, pairs, self.threads, heads.eps),
        )
        kernel, at = self._kernel, ctypes.addressof(arguments)

        def turn(x: int, positions: int, rows: int, _alive: object = (heads, arguments)) -> None:
            kernel(x, positions, rows, at)

        return turn
