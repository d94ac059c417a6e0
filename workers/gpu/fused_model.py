"""A transformers model computed by fused kernels: its weights, and no code of its. See `decoder_form` for which ones.

Legend: N rows, C features between layers, S positions, F rotated pairs, H query heads, G key/value heads, D head dim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from tercet.kernels import reference
from tercet.kernels.gpu.gated import Gate
from tercet.kernels.gpu.residual_norm import rms_norm
from tercet.kernels.gpu.rope_and_write import HeadNorms, Rotation, rope_and_write
from tercet.kernels.gpu.skinny_gemm import Scratch
from tercet.kernels.softmax_rule import SoftmaxRule
from tercet.workers.attention import Sighting
from tercet.workers.decoder_form import (
    LayerParts,
    Unfusable,
    last_norm,
    layers_of,
    rotary_table,
)
from tercet.workers.gpu.attention_step import AttentionStep
from tercet.workers.gpu.product import Product
from tercet.workers.gpu.weights import PlainWeight, merged
from tercet.workers.kv_pool import KvPool

PROBE_ERROR_MAX = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}
"""Largest difference to a module's own answer, relative to the scale of its output."""


@dataclass(frozen=True, slots=True)
class Norm:
    """A root-mean-square norm."""

    scale_C: torch.Tensor
    eps: float

    def __call__(self, x_NC: torch.Tensor) -> torch.Tensor:
        return rms_norm(x_NC, self.scale_C, self.eps)


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """One decoder layer: nine launches for a few rows."""

    attention_norm: Norm
    qkv: Product
    head_norms: HeadNorms | None
    rule: SoftmaxRule
    output: Product
    mlp_norm: Norm
    gate_up: Product
    gate: Gate
    down: Product
    head_dim: int
    kv_heads: int

    def __call__(
        self, x_NC: torch.Tensor, pages: torch.Tensor, step: AttentionStep, rotation: Rotation
    ) -> torch.Tensor:
        qkv_NHD = self.qkv(self.attention_norm(x_NC)).view(len(x_NC), -1, self.head_dim)
        heads = qkv_NHD.shape[1] - 2 * self.kv_heads
        q_NHD, k_NGD, v_NGD = torch.split(qkv_NHD, [heads, self.kv_heads, self.kv_heads], 1)
        q_NHD = rope_and_write(
            q_NHD, k_NGD, v_NGD, pages, step.places, rotation,
            norms=self.head_norms, turn_keys=step.is_fresh,
        )  # fmt: skip
        seen_NHD = step.attend(q_NHD, k_NGD, v_NGD, pages, self.rule)
        x_NC = self.output.add(seen_NHD.flatten(1), x_NC)
        return self.down.add(self.gate_up.gated(self.mlp_norm(x_NC), self.gate), x_NC)


class FusedModel:
    """Made by `of`; `bind` gives it the memory that keys and values live in."""

    def __init__(
        self,
        embedding: nn.Module,
        layers: Sequence[FusedLayer],
        norm: Norm,
        head: Product,
        rotation: Rotation,
    ) -> None:
        self._embedding, self._layers, self._norm, self._head = embedding, layers, norm, head
        self._rotation = rotation
        self._pages: tuple[torch.Tensor, ...] = ()

    @classmethod
    @torch.inference_mode()
    def of(
        cls, model: PreTrainedModel, sightings: Sequence[Sighting], positions: int
    ) -> "FusedModel":
        """Takes over the weights, merging some; the model's modules keep views of them. Raises Unfusable.

        Positions from `positions` on have no rotation.
        """
        layers, head = layers_of(model, sightings), model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise Unfusable("it has no head of its own")
        scratch = Scratch(model.device)
        return cls(
            model.get_input_embeddings(),
            [_layer(each, scratch) for each in layers],
            _norm(last_norm(model)),
            Product(PlainWeight(head.weight, scratch), head.bias),
            Rotation(rotary_table(model, positions)),
        )

    @property
    def products(self) -> Iterator[Product]:
        for layer in self._layers:
            yield from (layer.qkv, layer.output, layer.gate_up, layer.down)
        yield self._head

    def bind(self, kv: KvPool) -> None:
        """Keys and values live there from now on."""
        self._pages = tuple(kv.tensor[:, layer] for layer in range(len(self._layers)))

    def unbind(self) -> None:
        """That memory may go."""
        self._pages = ()

    def __call__(
        self, tokens_N: torch.Tensor, step: AttentionStep, rows: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits of `rows`, or of all, in the model's type; enqueued on the current stream."""
        x_NC: torch.Tensor = self._embedding(tokens_N)
        for layer, pages in zip(self._layers, self._pages, strict=True):
            x_NC = layer(x_NC, pages, step, self._rotation)
        if rows is not None:
            x_NC = x_NC[rows]
        return self._head(self._norm(x_NC))


def _layer(parts: LayerParts, scratch: Scratch) -> FusedLayer:
    attention, mlp = parts.attention, parts.mlp
    _, kv_heads, _, head_dim = parts.sighting.key_shape
    return FusedLayer(
        attention_norm=_norm(parts.attention_norm),
        qkv=_merged(attention, ("q_proj", "k_proj", "v_proj"), scratch),
        head_norms=_head_norms(parts, head_dim),
        rule=parts.sighting.rule,
        output=_merged(attention, ("o_proj",), scratch),
        mlp_norm=_norm(parts.mlp_norm),
        gate_up=_merged(mlp, ("gate_proj", "up_proj"), scratch),
        gate=_gate(getattr(mlp, "act_fn", None)),
        down=_merged(mlp, ("down_proj",), scratch),
        head_dim=head_dim,
        kv_heads=kv_heads,
    )


def _merged(parent: nn.Module, names: Sequence[str], scratch: Scratch) -> Product:
    """One product for layers that read the same input; their modules keep views of it."""
    linears = [
        linear for name in names if isinstance(linear := getattr(parent, name, None), nn.Module)
    ]
    weight = merged(linears, scratch) if len(linears) == len(names) else None
    if weight is None:
        raise Unfusable(f"{', '.join(names)} are not all there, or not of one known kind")
    biases = [linear.bias for linear in linears if isinstance(linear.bias, torch.Tensor)]
    if biases and len(biases) < len(linears):
        raise Unfusable(f"of {', '.join(names)} only some have a bias")
    bias_N = torch.cat(biases) if biases else None
    return Product(weight, bias_N)


def _norm(module: nn.Module) -> Norm:
    """In the form that gives the module's own answers."""
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, torch.Tensor) or weight.dim() != 1 or not isinstance(eps, float):
        raise Unfusable(f"{type(module).__name__} is not a root-mean-square norm")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, len(weight), generator=generator).to(weight) + 0.5
    own = module(x).float()
    for scale in (weight.float(), 1.0 + weight.float()):
        error = (reference.rms_norm(x, scale, eps).float() - own).abs().max()
        if error <= PROBE_ERROR_MAX[weight.dtype] * own.abs().max():
            return Norm(scale.contiguous(), eps)
    raise Unfusable(f"{type(module).__name__} is not a root-mean-square norm")


def _head_norms(parts: LayerParts, head_dim: int) -> HeadNorms | None:
    norms = parts.head_norms()
    if norms is None:
        return None
    q_norm, k_norm = norms
    q, k = _norm(q_norm), _norm(k_norm)
    if len(q.scale_C) != head_dim or len(k.scale_C) != head_dim or q.eps != k.eps:
        raise Unfusable("norms of queries and keys are not those of heads")
    return HeadNorms(q.scale_C, k.scale_C, q.eps)


def _gate(act: object) -> Gate:
    if not callable(act):
        raise Unfusable("its feed-forward layers have no activation")
    x = torch.linspace(-6, 6, 49)
    own = act(x)
    for gate, known in ((Gate.SILU, F.silu(x)), (Gate.GELU_TANH, F.gelu(x, approximate="tanh"))):
        if torch.allclose(own, known, atol=1e-5):
            return gate
    raise Unfusable(f"it has the activation {type(act).__name__}")
