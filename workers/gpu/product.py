"""A linear layer with what follows it fused in, for any number of rows.

Legend: M rows, K features in, N features out.
"""

import torch

from tercet.kernels.gpu.gated import Gate, gated
from tercet.workers.gpu.weights import Weight


class Product:
    """`x W^T + b`. Few rows go through the kernel for them."""

    def __init__(self, weight: Weight, bias_N: torch.Tensor | None) -> None:
        self._weight, self._bias_N = weight, bias_N
        self.few_rows = weight.few_rows
        """So many rows go through the kernel for few."""

    def __call__(self, x_MK: torch.Tensor) -> torch.Tensor:
        if len(x_MK) <= self.few_rows:
            return self._weight.few(x_MK, bias_N=self._bias_N)
        return self._weight.many(x_MK, self._bias_N)

    def add(self, x_MK: torch.Tensor, residual_MN: torch.Tensor) -> torch.Tensor:
        """The product and a residual, whose memory may hold the sum then."""
        if len(x_MK) <= self.few_rows:
            return self._weight.few(x_MK, bias_N=self._bias_N, residual_MN=residual_MN)
        return self._weight.add(x_MK, self._bias_N, residual_MN)

    def gated(self, x_MK: torch.Tensor, gate: Gate) -> torch.Tensor:
        """Half as wide: the weight holds gate and up one behind the other."""
        if len(x_MK) <= self.few_rows:
            return self._weight.few(x_MK, bias_N=self._bias_N, gate=gate)
        return gated(self._weight.many(x_MK, self._bias_N), gate)
