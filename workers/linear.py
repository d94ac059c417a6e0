"""Linear layers made fast: siblings that read the same input become one product, and CPU weights are packed.

Measured on a Zen 5 core against plain `F.linear` in fp32: 38 against 16 GB/s for one row, 150 against 55 GFLOP/s for 16
rows, 230 against 100 for 256. Knows module names that families share, and nothing of any family in particular.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import TypeGuard

import torch
from torch import nn

from tercet.kernels import packed_linear
from tercet.kernels.compiler import CompilerUnavailable
from tercet.kernels.packed_linear import NativePackedLinear

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Names under which one parent keeps projections of the same input."""

log = logging.getLogger(__name__)


@torch.no_grad()
def accelerate_linears(model: nn.Module, threads: int = 1) -> None:
    """Replaces the plain linear layers below `model` in place; afterwards packed weights cannot be read back.

    An embedding whose weight is also a packed head reads its rows from there, so that nothing is kept twice.
    """
    packer = _Packer(threads)
    for parent in list(model.modules()):
        for names in SIBLINGS:
            present = [name for name in names if _is_plain_linear(getattr(parent, name, None))]
            if len(present) > 1:
                _merge_siblings(parent, present, packer)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if _is_plain_linear(child):
                setattr(parent, name, packer.pack(child))
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Embedding and (packed := packer.packed_as(child.weight)):
                setattr(parent, name, PackedEmbedding(packed))


class PackedLinear(nn.Module):
    """`x W^T + b` with `W` in panels."""

    def __init__(self, linear: nn.Linear, kernel: NativePackedLinear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.packed = nn.Parameter(packed_linear.pack(linear.weight), requires_grad=False)
        bias_N = None if linear.bias is None else linear.bias.detach().float()
        whole = (self.packed.detach(), bias_N, self.out_features)
        self._product, self.in_memory = kernel.bind(*whole), kernel.bind_memory(*whole)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._product(x)


class PackedEmbedding(nn.Module):
    """An embedding that reads the rows of a packed head."""

    def __init__(self, head: PackedLinear) -> None:
        super().__init__()
        self.packed = head.packed

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return packed_linear.rows_of(self.packed, ids)


class SharedProduct:
    """One product for several layers that are called with the same input one after another.

    The first call computes, the others find their columns. With another input it computes anew, so a family that calls
    them differently gets right answers slowly. Nothing is kept once every layer has been served.
    """

    __slots__ = ("_input", "_outputs", "linear", "widths")

    def __init__(self, linear: nn.Module, widths: Sequence[int]) -> None:
        self.linear, self.widths = linear, list(widths)
        self._input: torch.Tensor | None = None
        self._outputs: dict[int, torch.Tensor] = {}

    def take(self, x: torch.Tensor, part: int) -> torch.Tensor:
        """The columns of layer `part` for input `x`."""
        if self._input is not x or part not in self._outputs:
            self._input = x
            self._outputs = dict(enumerate(self.linear(x).split(self.widths, dim=-1)))
        mine = self._outputs.pop(part)
        if not self._outputs:
            self._input = None
        return mine


class SharedLinear(nn.Module):
    """One layer's view of a shared product."""

    def __init__(self, product: SharedProduct, part: int, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.product, self.part = product, part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product.take(x, self.part)


class _Packer:
    """Packs layers, and remembers which weight became which layer."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._kernels: dict[torch.dtype, NativePackedLinear] = {}
        self._packed: dict[int, PackedLinear] = {}
        self._compiles = True

    def pack(self, linear: nn.Linear) -> nn.Module:
        """The packed layer, or the layer itself where it cannot be packed or there is no compiler."""
        dtype = linear.weight.dtype
        if not packed_linear.can_pack(linear.weight):
            return linear
        if self._compiles and dtype not in self._kernels:
            try:
                self._kernels[dtype] = NativePackedLinear(dtype, self._threads)
            except CompilerUnavailable as exc:
                self._compiles = False
                log.warning("linear layers run in plain torch, at half the speed: %s", exc)
        if not self._compiles:
            return linear
        packed = PackedLinear(linear, self._kernels[dtype])
        self._packed[linear.weight.data_ptr()] = packed
        return packed

    def packed_as(self, weight: torch.Tensor) -> PackedLinear | None:
        """The packed layer that had this very weight."""
        packed = self._packed.get(weight.data_ptr())
        same = packed is not None and weight.shape == (packed.out_features, packed.in_features)
        return packed if same else None


def _merge_siblings(parent: nn.Module, names: Sequence[str], packer: _Packer) -> None:
    linears: list[nn.Linear] = [getattr(parent, name) for name in names]
    if len({(linear.in_features, linear.weight.dtype) for linear in linears}) > 1:
        return
    widths = [linear.out_features for linear in linears]
    with torch.device("meta"):
        merged = nn.Linear(linears[0].in_features, sum(widths), bias=False)
    merged.weight = nn.Parameter(torch.cat([linear.weight for linear in linears]), False)
    if any(linear.bias is not None for linear in linears):
        merged.bias = nn.Parameter(torch.cat(list(_biases(linears))), False)
    product = SharedProduct(packer.pack(merged), widths)
    for part, (name, linear) in enumerate(zip(names, linears, strict=True)):
        setattr(parent, name, SharedLinear(product, part, linear))


def _biases(linears: Sequence[nn.Linear]) -> Iterator[torch.Tensor]:
    for linear in linears:
        zeros = linear.weight.new_zeros(linear.out_features)
        yield zeros if linear.bias is None else linear.bias


def _is_plain_linear(module: object) -> TypeGuard[nn.Linear]:
    """Subclasses may compute something else (quantized, adapted) and stay as they are."""
    return type(module) is nn.Linear
