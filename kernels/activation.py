"""Activations whose results depend on the element alone: torch treats the rest of a vector loop, and so of a row, in another way.

Legend: N rows, D features. The plain-torch twins are torch's own functions, see `Form.twin`.
"""

import ctypes
from enum import IntEnum
from pathlib import Path

import torch
from torch.nn import functional as F

from tercet.kernels.compiler import load_library

SOURCE = Path(__file__).with_name("activation.cpp")
SYMBOLS = {torch.float32: "tercet_activation_f32", torch.bfloat16: "tercet_activation_bf16"}


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
        self._kernel.argtypes = [pointer, size, pointer, size, size, number, number]

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
            x_ND.data_ptr(), row, out.data_ptr(), rows, shape[-1], form.value, self.threads
        )
        return out
