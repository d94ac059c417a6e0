"""Root-mean-square norm in one call where eager torch makes eight: at a few rows, calls are what a norm costs.

Legend: N rows, D features. The plain-torch twin is `reference.rms_norm`.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

from tercet.kernels.compiler import load_library

SOURCE = Path(__file__).with_name("rms_norm.cpp")
SYMBOLS = {torch.float32: "tercet_rms_norm_f32", torch.bfloat16: "tercet_rms_norm_bf16"}


Norm = Callable[[int, int | None, int, int], None]
"""Addresses of rows, of what is added to them before (or None) and of what comes out, and how many rows there are."""


class RmsNorm(Protocol):
    """`x / sqrt(mean(x²) + eps) * scale` over the last axis, computed in fp32; `scale` is fp32."""

    def __call__(self, x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor: ...


class NativeRmsNorm:
    """The C++ kernel for one element type. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, threads: int = 1, cache: Path | None = None) -> None:
        self.dtype, self.threads = dtype, threads
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        pointers, sizes = [ctypes.c_void_p] * 4, [ctypes.c_int64] * 2
        self._kernel.argtypes = [*pointers, *sizes, ctypes.c_float, ctypes.c_int]

    def __call__(self, x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor:
        x = x_ND.contiguous()
        self._check(x, scale_D)
        out = torch.empty_like(x)
        norm, rows = self.bind(scale_D, eps), x.numel() // x.shape[-1]
        norm(x.data_ptr(), None, out.data_ptr(), rows)
        return out

    def add(
        self, x_ND: torch.Tensor, more_ND: torch.Tensor, scale_D: torch.Tensor, eps: float
    ) -> torch.Tensor:
        """The norm of `x + more`, which takes the place of `x`; both are contiguous."""
        self._check(x_ND, scale_D)
        self._check(more_ND, scale_D)
        assert x_ND.shape == more_ND.shape, (x_ND.shape, more_ND.shape)
        out = torch.empty_like(x_ND)
        norm, rows = self.bind(scale_D, eps), x_ND.numel() // x_ND.shape[-1]
        norm(x_ND.data_ptr(), more_ND.data_ptr(), out.data_ptr(), rows)
        return out

    def bind(self, scale_D: torch.Tensor, eps: float) -> Norm:
        """The norm with one scale, which must stay where it is."""
        assert scale_D.dtype == torch.float32, scale_D.dtype
        assert scale_D.is_contiguous()
        kernel, depth, scale, threads = self._kernel, len(scale_D), scale_D.data_ptr(), self.threads

        def norm(x: int, more: int | None, out: int, rows: int, _alive: object = scale_D) -> None:
            kernel(x, more, scale, out, rows, depth, eps, threads)

        return norm

    def _check(self, x_ND: torch.Tensor, scale_D: torch.Tensor) -> None:
        assert x_ND.dtype == self.dtype, x_ND.dtype
        assert x_ND.is_contiguous()
        assert scale_D.shape == x_ND.shape[-1:], (scale_D.shape, x_ND.shape)
