"""Linear layers on weights packed in panels, and rows of such weights read back.

Legend: M rows of x, N output features, K input features, P panels of PANEL output features each.
A packed weight is `[P, K / s, PANEL, s]`, where s input features lie side by side: 1 in fp32, 2 in bf16.
The plain-torch twin is `reference.packed_linear`; `packed_linear.cpp` says why the layout is as it is.
"""

import ctypes
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from tercet.kernels.compiler import load_library
from tercet.kernels.huge_pages import in_huge_pages

SOURCE = Path(__file__).with_name("packed_linear.cpp")
PANEL = 64
SIDE_BY_SIDE = {torch.float32: 1, torch.bfloat16: 2}
SYMBOLS = {torch.float32: "tercet_packed_linear_f32", torch.bfloat16: "tercet_packed_linear_bf16"}

Product = Callable[[torch.Tensor], torch.Tensor]
"""`[..., K]` to `[..., N]`."""

MemoryProduct = Callable[[int, int, int], None]
"""Addresses of contiguous rows and of what comes out, and how many rows there are."""


def can_pack(weight_NK: torch.Tensor) -> bool:
    """Whether `pack` takes this weight."""
    if weight_NK.dtype not in SIDE_BY_SIDE or weight_NK.device.type != "cpu":
        return False
    return weight_NK.shape[1] % SIDE_BY_SIDE[weight_NK.dtype] == 0


def pack(weight_NK: torch.Tensor) -> torch.Tensor:
    """The weight in panels; output features are padded with zeros to whole panels."""
    side = SIDE_BY_SIDE[weight_NK.dtype]
    columns, depth = weight_NK.shape
    padded = F.pad(weight_NK, (0, 0, 0, -columns % PANEL))
    return in_huge_pages(padded.view(-1, PANEL, depth // side, side).transpose(1, 2).contiguous())


def rows_of(packed: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Rows of the weight as it was before packing: `[*rows.shape, K]`."""
    return packed[rows // PANEL, :, rows % PANEL].flatten(-2)


class NativePackedLinear:
    """The C++ kernel for one element type. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, threads: int = 1, cache: Path | None = None) -> None:
        self.dtype, self.threads = dtype, threads
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        pointers, sizes = [ctypes.c_void_p] * 4, [ctypes.c_int64] * 3
        self._kernel.argtypes = [*pointers, *sizes, ctypes.c_int]

    def __call__(
        self,
        x_MK: torch.Tensor,
        packed: torch.Tensor,
        bias_N: torch.Tensor | None,
        columns: int,
    ) -> torch.Tensor:
        """`x W^T + bias`, with the shape of `x` but `columns` in the last place; `bias_N` is fp32."""
        return self.bind(packed, bias_N, columns)(x_MK)

    def bind(self, packed: torch.Tensor, bias_N: torch.Tensor | None, columns: int) -> Product:
        """The product with one weight, which is checked here, once, and must stay where it is."""
        multiply, dtype = self.bind_memory(packed, bias_N, columns), self.dtype
        depth = packed.shape[1] * packed.shape[3]

        def product(x_MK: torch.Tensor) -> torch.Tensor:
            shape = x_MK.shape
            assert x_MK.dtype == dtype, (x_MK.dtype, dtype)
            assert shape[-1] == depth, (shape, depth)
            x = x_MK.contiguous()
            out = torch.empty((*shape[:-1], columns), dtype=dtype)
            multiply(x.data_ptr(), out.data_ptr(), x.numel() // depth)
            return out

        return product

    def bind_memory(
        self, packed: torch.Tensor, bias_N: torch.Tensor | None, columns: int
    ) -> MemoryProduct:
        """As `bind`, for whoever vouches for the memory it names."""
        panels, groups, width, side = packed.shape
        depth = groups * side
        assert packed.dtype == self.dtype, packed.dtype
        assert width == PANEL, width
        assert (panels - 1) * PANEL < columns <= panels * PANEL, (panels, columns)
        if bias_N is not None:
            assert bias_N.dtype == torch.float32, bias_N.dtype
            assert bias_N.shape == (columns,), (bias_N.shape, columns)
        kernel, threads = self._kernel, self.threads
        weight, bias = packed.data_ptr(), None if bias_N is None else bias_N.data_ptr()

        def multiply(x: int, out: int, rows: int, _alive: object = (packed, bias_N)) -> None:
            kernel(x, weight, bias, out, rows, columns, depth, threads)

        return multiply
