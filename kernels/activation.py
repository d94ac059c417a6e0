"""Activations whose results depend on the element alone: torch treats the rest of a vector loop, and so of a row, in another way.

Legend: N rows, D features. The plain-torch twins are torch's own functions, see `Form.twin`.
"""

import ctypes
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path

import torch
from torch.nn import functional as F

from tercet.kernels.compiler import load_library

SOURCE = Path(__file__).with_name("activation.cpp")
SYMBOLS = {torch.float32: "tercet_activation_f32", torch.bfloat16: "tercet_activation_bf16"}


Gate = Callable[[int, int, int], None]
"""Addresses of rows and of what comes out, and how many rows there are."""


class Form(IntEnum):
    """Mirrors the enumeration in the source."""

    SILU = 0
    GELU_TANH = 1

    def twin(self, x: torch.Tensor) -> torch.Tensor:
        """What torch says."""
        return F.silu(x) if self is Form.SILU else F.gelu(x, approximate="tanh")


class NativeActivation:
    """The C++ kernel for one element type. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, threads: int = 1, cache: Path | None = None) -> None:
        self.dtype, self.threads = dtype, threads
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        pointer, size, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
        self._kernel.argtypes = [pointer, pointer, size, pointer, size, size, number, number]

    def __call__(self, x_ND: torch.Tensor, form: Form) -> torch.Tensor:
        """Any shape in and the same out; rows may lie apart, as those of a part of a wider product do."""
        assert x_ND.dtype == self.dtype, x_ND.dtype
        shape = x_ND.shape
        out = torch.empty(shape, dtype=self.dtype)
        if x_ND.stride(-1) != 1 or shape[:-2].numel() != 1:
            x_ND = x_ND.contiguous()
        rows = shape[:-1].numel()
        row = x_ND.stride(-2) if len(shape) > 1 else 0
        self._kernel(
            x_ND.data_ptr(), None, row, out.data_ptr(), rows, shape[-1], form.value, self.threads
        )
        return out

    def gated(self, x_N2D: torch.Tensor, form: Form) -> torch.Tensor:
        """`act(x[:, :D]) * x[:, D:]`, rounded once, of contiguous rows."""
        assert x_N2D.dtype == self.dtype, x_N2D.dtype
        assert x_N2D.is_contiguous()
        rows, both = x_N2D.shape
        assert both % 2 == 0, both
        out = torch.empty((rows, both // 2), dtype=self.dtype)
        self.bind_gate(both // 2, form)(x_N2D.data_ptr(), out.data_ptr(), rows)
        return out

    def bind_gate(self, depth: int, form: Form) -> Gate:
        """As `gated`, for rows of `2 * depth` elements."""
        kernel, threads, number = self._kernel, self.threads, form.value
        half_bytes = depth * self.dtype.itemsize

        def gate(x: int, out: int, rows: int) -> None:
            kernel(x, x + half_bytes, 2 * depth, out, rows, depth, number, threads)

        return gate
