"""A decoder layer on a CPU as nine calls of C++, each with a few addresses: no modules, and no tensors between them.

At a few rows, calls of modules and operations on tensors take half as long as what is computed. Bits are those of the kernels, so
a row's do not depend on the rows beside it.

Legend: N rows, C features between layers, D head dim, F turned pairs, S positions.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import nn

from tercet.kernels.activation import Gate, NativeActivation
from tercet.kernels.packed_linear import MemoryProduct
from tercet.kernels.paged_attention import LayerMemory, NativePagedAttention
from tercet.kernels.rms_norm import NativeRmsNorm, Norm
from tercet.kernels.rotary import Heads, NativeRotary, Turn
from tercet.workers.activation import FastActivation
from tercet.workers.decoder_form import LayerParts, Unfusable
from tercet.workers.linear import PackedLinear, SharedLinear
from tercet.workers.norm import FastNorm
from tercet.workers.runner import BetweenLayers

ALIGNMENT_BYTES = 64
QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


class Places(NamedTuple):
    """What a step keeps of each row: in one use elements, in the other addresses."""

    x: int
    """The sum of residuals."""
    normed: int
    qkv: int
    seen: int
    """What attention gives."""
    product: int
    """What is to be added to `x`."""
    gate_up: int
    gated: int


class StepMemory:
    """Memory of one step, which all layers use in turn: a step that comes between two layers of another has its own."""

    def __init__(self, rows: int, widths: Places, dtype: torch.dtype) -> None:
        unit = ALIGNMENT_BYTES // dtype.itemsize
        sizes = (-(-rows * width // unit) * unit for width in widths)
        *starts, total = accumulate(sizes, initial=0)
        memory, self.rows = torch.empty(total, dtype=dtype), rows
        self.x_NC, self.normed_NC = (
            memory[start : start + rows * widths.x].view(rows, widths.x) for start in starts[:2]
        )
        self.at = Places(*(memory.data_ptr() + start * dtype.itemsize for start in starts))


@dataclass(frozen=True, slots=True)
class LeanLayer:
    """Its rows come normed, and go normed for what is next."""

    qkv: MemoryProduct
    turn: Turn
    memory: LayerMemory
    output: MemoryProduct
    mlp_norm: Norm
    gate_up: MemoryProduct
    gate: Gate
    down: MemoryProduct
    next_norm: Norm

    def __call__(
        self,
        step: StepMemory,
        positions: int,
        attend: Callable[[LayerMemory], None],
        between_layers: BetweenLayers,
    ) -> None:
        rows, (x, normed, qkv, seen, product, gate_up, gated) = step.rows, step.at
        self.qkv(normed, qkv, rows)
        self.turn(qkv, positions, rows)
        between_layers()
        attend(self.memory)
        self.output(seen, product, rows)
        self.mlp_norm(x, product, normed, rows)
        self.gate_up(normed, gate_up, rows)
        self.gate(gate_up, gated, rows)
        self.down(gated, product, rows)
        self.next_norm(x, product, normed, rows)


class LayerKernels:
    """Makes layers of modules that were made fast, and that go on working. Raises CompilerUnavailable."""

    def __init__(self, attention: NativePagedAttention, cos_sin_S2F: torch.Tensor) -> None:
        kind = (attention.dtype, attention.threads)
        self._norms, self._activation = NativeRmsNorm(*kind), NativeActivation(*kind)
        self._rotary, self._cos_sin_S2F = NativeRotary(*kind), cos_sin_S2F

    def layer(self, parts: LayerParts, memory: LayerMemory, following: nn.Module) -> LeanLayer:
        """`following` is the norm behind it. Raises Unfusable."""
        act, down = getattr(parts.mlp, "act_fn", None), _packed(parts.mlp, "down_proj")
        if not isinstance(act, FastActivation):
            raise Unfusable(f"it has the activation {type(act).__name__}")
        return LeanLayer(
            qkv=_packed(parts.attention, *QKV).in_memory,
            turn=self._rotary.bind(self.heads(parts)),
            memory=memory,
            output=_packed(parts.attention, "o_proj").in_memory,
            mlp_norm=self.norm(parts.mlp_norm),
            gate_up=_packed(parts.mlp, *GATE_UP).in_memory,
            gate=self._activation.bind_gate(down.in_features, act.form),
            down=down.in_memory,
            next_norm=self.norm(following),
        )

    def norm(self, module: nn.Module) -> Norm:
        """Raises Unfusable."""
        fast = _fast_norm(module)
        return self._norms.bind(fast.scale_D, fast.eps)

    def heads(self, parts: LayerParts) -> Heads:
        """What the rows of its merged product are. Raises Unfusable."""
        queries, (_, keys, _, dim) = parts.sighting.query_shape[1], parts.sighting.key_shape
        heads = Heads(queries, keys, dim, (queries + 2 * keys) * dim, self._cos_sin_S2F)
        norms = parts.head_norms()
        if norms is None:
            return heads
        q, k = map(_fast_norm, norms)
        if not len(q.scale_D) == len(k.scale_D) == dim or q.eps != k.eps:
            raise Unfusable("norms of queries and keys are not those of heads")
        return replace(heads, q_scale_D=q.scale_D, k_scale_D=k.scale_D, eps=q.eps)


def widths_of(parts: LayerParts, heads: Heads) -> Places:
    """Raises Unfusable where products do not fit together as they should."""
    qkv, output = _packed(parts.attention, *QKV), _packed(parts.attention, "o_proj")
    gate_up, down = _packed(parts.mlp, *GATE_UP), _packed(parts.mlp, "down_proj")
    x, seen, gated = qkv.in_features, heads.queries * heads.dim, down.in_features
    fits = (
        (qkv.out_features, output.in_features, output.out_features) == (heads.row, seen, x)
        and (gate_up.in_features, gate_up.out_features, down.out_features) == (x, 2 * gated, x)
        and heads.cos_sin_S2F.shape[1] <= heads.dim
    )
    if not fits:
        raise Unfusable("its products do not fit together")
    return Places(x, x, heads.row, seen, x, 2 * gated, gated)


def _packed(parent: nn.Module, *names: str) -> PackedLinear:
    """The product that these layers, or this one, have to themselves. Raises Unfusable."""
    modules = [getattr(parent, name, None) for name in names]
    found = modules[0]
    if len(names) > 1:
        shared = [module for module in modules if isinstance(module, SharedLinear)]
        whole = {module.product for module in shared}
        if [module.part for module in shared] != list(range(len(names))) or len(whole) > 1:
            raise Unfusable(f"{', '.join(names)} are not one product")
        found = shared[0].product.linear if len(shared[0].product.widths) == len(names) else None
    if not isinstance(found, PackedLinear):
        raise Unfusable(f"{', '.join(names)} cannot be packed")
    return found


def _fast_norm(module: nn.Module) -> FastNorm:
    if not isinstance(module, FastNorm):
        raise Unfusable(f"{type(module).__name__} is not a root-mean-square norm")
    return module
