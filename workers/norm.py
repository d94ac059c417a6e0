"""Replaces a model's root-mean-square norms by one fast call each.

Families write the same norm in different ways (`weight`, `1 + weight`, cast before or after), so nothing is taken from
names: a norm is replaced if one of the known forms gives its own answers, and left alone otherwise.
"""

import logging
from typing import TypeGuard

import torch
from torch import nn

from tercet.kernels.compiler import CompilerUnavailable
from tercet.kernels.rms_norm import SYMBOLS, NativeRmsNorm, RmsNorm

PROBE_ROWS = 3
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
"""Largest difference to the module's own answer, relative to the scale of its output."""

log = logging.getLogger(__name__)


class FastNorm(nn.Module):
    """A norm whose form was found out."""

    def __init__(self, kernel: RmsNorm, scale_D: torch.Tensor, eps: float) -> None:
        super().__init__()
        self._kernel, self.scale_D, self.eps = kernel, scale_D, eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._kernel(x, self.scale_D, self.eps)


@torch.no_grad()
def accelerate_norms(model: nn.Module) -> int:
    """Replaces the norms below `model` in place, on a CPU; returns how many."""
    kernels: dict[torch.dtype, RmsNorm] = {}
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            weight, eps = getattr(child, "weight", None), _eps_of(child)
            if eps is None or not _may_be_replaced(weight):
                continue
            try:
                kernel = kernels.setdefault(weight.dtype, NativeRmsNorm(weight.dtype))
            except CompilerUnavailable as exc:
                log.warning("norms run in plain torch: %s", exc)
                return replaced
            fast = _same_as(child, weight, eps, kernel)
            if fast is not None:
                setattr(parent, name, fast)
                replaced += 1
    return replaced


def _eps_of(module: nn.Module) -> float | None:
    for name in ("variance_epsilon", "eps"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return None


def _may_be_replaced(weight: object) -> TypeGuard[torch.Tensor]:
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1:
        return False
    return weight.device.type == "cpu" and weight.dtype in SYMBOLS


def _same_as(
    module: nn.Module, weight: torch.Tensor, eps: float, kernel: RmsNorm
) -> FastNorm | None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(PROBE_ROWS, len(weight), generator=generator).to(weight.dtype)
    x = x + 0.5  # a norm that subtracts the mean must not pass
    own = module(x)
    for scale_D in (weight.float(), 1.0 + weight.float()):
        fast = FastNorm(kernel, scale_D.contiguous(), eps)
        error = (fast(x).float() - own.float()).abs().max()
        if error <= TOLERANCE[weight.dtype] * own.float().abs().max():
            return fast
    return None
