"""Root-mean-square norm in one call where eager torch makes eight: at a few rows, calls are what a norm costs.

Legend: N rows, D features. The plain-torch twin is `reference.rms_norm`.
"""

import ctypes
from pathlib import Path
from typing import Protocol

import torch

from tercet.kernels.compiler import load_library

SOURCE = Path(__file__).with_name("rms_norm.cpp")
SYMBOLS = {torch.float32: "tercet_rms_norm_f32", torch.bfloat16: "tercet_rms_norm_bf16"}


class RmsNorm(Protocol):
    """`x / sqrt(mean(x²) + eps) * scale` over the last axis, computed in fp32; `scale` is fp32."""

    def __call__(self, x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor: ...


class NativeRmsNorm:
    """The C++ kernel for one element type, on one thread. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, cache: Path | None = None) -> None:
        self.dtype = dtype
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        pointers, sizes = [ctypes.c_void_p] * 3, [ctypes.c_int64] * 2
        self._kernel.argtypes = [*pointers, *sizes, ctypes.c_float]

    def __call__(self, x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor:
        assert x_ND.dtype == self.dtype, x_ND.dtype
        assert scale_D.dtype == torch.float32, scale_D.dtype
        depth = x_ND.shape[-1]
        assert scale_D.shape == (depth,), (scale_D.shape, depth)
        x = x_ND.contiguous()
        out = torch.empty_like(x)
        self._kernel(
            x.data_ptr(), scale_D.data_ptr(), out.data_ptr(), x.numel() // depth, depth, eps
        )
        return out
