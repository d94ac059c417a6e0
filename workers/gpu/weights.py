"""What a product multiplies with: plain weights, or 8-bit floats that stay so in memory.

Legend: M rows, K features in, N features out, G groups of K.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from tercet.kernels.gpu.decoded import decoded
from tercet.kernels.gpu.gated import Gate
from tercet.kernels.gpu.row_codes import row_codes
from tercet.kernels.gpu.skinny_gemm import ROWS_MAX, Scratch, skinny_gemm
from tercet.workers.quantised.fp8_weight import Fp8Linear, Fp8Weight

FP8_CAPABILITY_MIN = (8, 9)
CODES_READ_MAX = 4
"""Reading codes, writing the plain weight and reading that moves as many bytes as reading the codes five times."""


PLAIN_FEW_ROWS = 32
"""More rows of plain weights are as fast through the vendor's library, on an H200."""


class Weight(Protocol):
    """Multiplies few rows in our kernel, with what follows fused in, and many as is best for its type."""

    few_rows: int
    """So many rows are few, and no more than our kernel takes."""

    def few(
        self,
        x_MK: torch.Tensor,
        *,
        bias_N: torch.Tensor | None,
        gate: Gate | None = None,
        residual_MN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `skinny_gemm`."""
        ...

    def many(self, x_MK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
        """`x W^T + b`."""
        ...

    def add(
        self, x_MK: torch.Tensor, bias_N: torch.Tensor | None, residual_MN: torch.Tensor
    ) -> torch.Tensor:
        """`x W^T + b` of many rows, and a residual, whose memory may hold the sum then."""
        ...


class PlainWeight:
    """See `Weight`. Many rows go through the vendor's library."""

    few_rows = PLAIN_FEW_ROWS

    def __init__(self, weight_NK: torch.Tensor, scratch: Scratch) -> None:
        self._weight_NK, self._scratch = weight_NK, scratch

    def few(
        self,
        x_MK: torch.Tensor,
        *,
        bias_N: torch.Tensor | None,
        gate: Gate | None = None,
        residual_MN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Weight`."""
        return skinny_gemm(
            x_MK, self._weight_NK, self._scratch, bias_N=bias_N, gate=gate, residual_MN=residual_MN
        )

    def many(self, x_MK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
        """See `Weight`."""
        return F.linear(x_MK, self._weight_NK, bias_N)

    def add(
        self, x_MK: torch.Tensor, bias_N: torch.Tensor | None, residual_MN: torch.Tensor
    ) -> torch.Tensor:
        """See `Weight`; rounded once but for a bias."""
        residual_MN.addmm_(x_MK, self._weight_NK.T)
        return residual_MN if bias_N is None else residual_MN.add_(bias_N)


class CodedWeight:
    """See `Weight`. Few rows are multiplied as they are. Many are rounded too, if the checkpoint means them to be and the
    vendor's library can scale them so; else they go through our kernel a few at a time, or, where that would read the codes
    too often, through the library with the plain weight, made for the while.
    """

    few_rows = ROWS_MAX

    def __init__(self, stored: Fp8Weight, scratch: Scratch) -> None:
        self._stored, self._scratch = stored, scratch

    def few(
        self,
        x_MK: torch.Tensor,
        *,
        bias_N: torch.Tensor | None,
        gate: Gate | None = None,
        residual_MN: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `Weight`."""
        codes_NK, scales_NG = self._stored.codes_NK, self._stored.scales_NG
        return skinny_gemm(
            x_MK,
            codes_NK,
            self._scratch,
            scales_NG=scales_NG,
            bias_N=bias_N,
            gate=gate,
            residual_MN=residual_MN,
        )

    def many(self, x_MK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
        """See `Weight`."""
        if self._stored.rounds(x_MK.dtype):
            return self._rounded(x_MK, bias_N)
        if len(x_MK) <= CODES_READ_MAX * ROWS_MAX:
            return torch.cat(
                [self.few(part, bias_N=bias_N) for part in torch.split(x_MK, ROWS_MAX)]
            )
        stored = self._stored
        weight_NK = decoded(stored.codes_NK, stored.scales_NG, stored.group, x_MK.dtype)
        return F.linear(x_MK, weight_NK, bias_N)

    def add(
        self, x_MK: torch.Tensor, bias_N: torch.Tensor | None, residual_MN: torch.Tensor
    ) -> torch.Tensor:
        """See `Weight`; the product is rounded before the residual is added."""
        return self.many(x_MK, bias_N).add_(residual_MN)

    def _rounded(self, x_MK: torch.Tensor, bias_N: torch.Tensor | None) -> torch.Tensor:
        codes_MK, scales_M1 = row_codes(x_MK)
        product_MN = torch._scaled_mm(
            codes_MK,
            self._stored.codes_NK.T,
            scale_a=scales_M1,
            scale_b=self._stored.scales_NG.T,
            out_dtype=x_MK.dtype,
        )
        return product_MN if bias_N is None else product_MN.add_(bias_N)


def merged(linears: Sequence[nn.Module], scratch: Scratch) -> Weight | None:
    """One weight of all their rows, of which they keep views; None if they are of other kinds or of several."""
    plain = [linear for linear in linears if type(linear) is nn.Linear]
    if len(plain) == len(linears):
        return PlainWeight(_joined(plain, "weight"), scratch)
    coded = [linear for linear in linears if isinstance(linear, Fp8Linear)]
    groups = {(linear.stored.group, linear.scales.shape[1]) for linear in coded}
    if len(coded) < len(linears) or len(groups) > 1:
        return None
    codes_NK, scales_NG = _joined(coded, "weight"), _joined(coded, "scales", turned=True)
    ((group, _),) = groups
    rounds_inputs = all(linear.stored.rounds_inputs for linear in coded)
    return CodedWeight(Fp8Weight(codes_NK, scales_NG, group, rounds_inputs), scratch)


def multiplies_fp8(device: torch.device) -> bool:
    """Whether weights of 8-bit floats can stay so there."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= FP8_CAPABILITY_MIN


def _joined(modules: Sequence[nn.Module], name: str, turned: bool = False) -> torch.Tensor:
    """Their parameters one behind the other; each keeps its part as a view. Turned ones have their columns in one piece."""
    parts: list[torch.Tensor] = [module.get_parameter(name) for module in modules]
    if len(parts) == 1:
        return parts[0]
    whole = torch.cat([part.T for part in parts], 1).T if turned else torch.cat(parts)
    views = torch.split(whole, [len(part) for part in parts])
    for module, view in zip(modules, views, strict=True):
        setattr(module, name, nn.Parameter(view, requires_grad=False))
    return whole
