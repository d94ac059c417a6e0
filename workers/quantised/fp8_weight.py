"""A weight of 8-bit floats, and a linear layer that has one.

Legend: M rows, N features out, K features in, G groups of K.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

CODES = torch.float8_e4m3fn
LIBRARY_ALIGNMENT = 16
"""Sizes of what a vendor's library multiplies in 8 bits are multiples of it."""
KERNEL_GROUP = 128
"""K of a group where there are several, for kernels that multiply in 8 bits."""


@dataclass(frozen=True, slots=True)
class Fp8Weight:
    """`codes[n, k] * scales[n, k // group]`: what is stored for a tensor, a channel or a block, written out for every row."""

    codes_NK: torch.Tensor
    scales_NG: torch.Tensor
    """fp32; those of one group lie side by side, as kernels read them."""
    group: int
    """K of one group."""
    rounds_inputs: bool
    """The checkpoint means the layer's inputs to be rounded to 8-bit floats too, each row by a scale of its own."""

    @classmethod
    def of(
        cls,
        codes_NK: torch.Tensor,
        scales: torch.Tensor,
        block: tuple[int, int] | None,
        rounds_inputs: bool,
    ) -> "Fp8Weight":
        """`scales` are one number, one for each row, or a grid of one for each `block`. Raises ValueError for others."""
        rows, k = codes_NK.shape
        scales = scales.float()
        if scales.numel() == 1:
            return cls(codes_NK, scales.reshape(1, 1).repeat(rows, 1), k, rounds_inputs)
        if scales.numel() == rows and scales.shape[0] == rows:
            return cls(codes_NK, scales.reshape(rows, 1), k, rounds_inputs)
        if block is None or scales.shape != (-(-rows // block[0]), -(-k // block[1])):
            raise ValueError(f"scales {tuple(scales.shape)} do not fit weights {(rows, k)}")
        scales_GN = scales.T.repeat_interleave(block[0], 1)[:, :rows].contiguous()
        return cls(codes_NK, scales_GN.T, min(block[1], k), rounds_inputs)

    @property
    def fits_kernels(self) -> bool:
        """It has one scale for a row, or as many as kernels know what to do with."""
        return self.scales_NG.shape[1] == 1 or self.group == KERNEL_GROUP

    def rounds(self, dtype: torch.dtype) -> bool:
        """Whether many inputs of this type are rounded where it stays: if they are meant to be, and a library scales so."""
        return (
            self.rounds_inputs
            and dtype == torch.bfloat16
            and self.scales_NG.shape[1] == 1
            and all(size % LIBRARY_ALIGNMENT == 0 for size in self.codes_NK.shape)
        )

    def dense(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight `[N, K]`, rounded once."""
        scales = self.scales_NG
        if scales.shape[1] > 1:
            scales = scales.repeat_interleave(self.group, 1)[:, : self.codes_NK.shape[1]]
        return (self.codes_NK.float() * scales).to(dtype)


class Fp8Linear(nn.Module):
    """A linear layer whose weight stays in 8 bits. By itself it computes with the plain weight, made anew each time."""

    def __init__(self, weight: Fp8Weight, bias_N: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.codes_NK.shape
        self._group, self._rounds_inputs = weight.group, weight.rounds_inputs
        self.weight = nn.Parameter(weight.codes_NK, requires_grad=False)
        self.scales = nn.Parameter(weight.scales_NG, requires_grad=False)
        self.bias = None if bias_N is None else nn.Parameter(bias_N, requires_grad=False)

    @property
    def stored(self) -> Fp8Weight:
        return Fp8Weight(self.weight, self.scales, self._group, self._rounds_inputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.stored.dense(x.dtype), self.bias)
