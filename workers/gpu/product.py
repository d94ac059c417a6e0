"""A linear layer with what follows it fused in, for any number of rows.

Legend: M rows, K features in, N features out.
"""

import torch
from torch.nn import functional as F

from tercet.kernels.gpu.gated import Gate, gated
from tercet.kernels.gpu.skinny_gemm import ROWS_MAX, Scratch, skinny_gemm


class Product:
    """`x W^T + b`. Few rows go through the kernel for them, more through the vendor's library."""

    def __init__(
        self,
        weight_NK: torch.Tensor,
        bias_N: torch.Tensor | None,
        scratch: Scratch,
        few_rows: int = ROWS_MAX,
    ) -> None:
        self.weight_NK, self.bias_N, self._scratch = weight_NK, bias_N, scratch
        self.few_rows = few_rows
        """So many rows go through the kernel for few."""

    def __call__(self, x_MK: torch.Tensor) -> torch.Tensor:
        if len(x_MK) <= self.few_rows:
            return skinny_gemm(x_MK, self.weight_NK, self._scratch, bias_N=self.bias_N)
        return F.linear(x_MK, self.weight_NK, self.bias_N)

    def add(self, x_MK: torch.Tensor, residual_MN: torch.Tensor) -> torch.Tensor:
        """The product and a residual, rounded once; the residual's memory may hold it then."""
        if len(x_MK) <= self.few_rows:
            return skinny_gemm(
                x_MK, self.weight_NK, self._scratch, bias_N=self.bias_N, residual_MN=residual_MN
            )
        residual_MN.addmm_(x_MK, self.weight_NK.T)
        return residual_MN if self.bias_N is None else residual_MN.add_(self.bias_N)

    def gated(self, x_MK: torch.Tensor, gate: Gate) -> torch.Tensor:
        """Half as wide: the weight holds gate and up one behind the other."""
        if len(x_MK) <= self.few_rows:
            return skinny_gemm(x_MK, self.weight_NK, self._scratch, bias_N=self.bias_N, gate=gate)
        return gated(F.linear(x_MK, self.weight_NK, self.bias_N), gate)
