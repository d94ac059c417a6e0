"""The form of decoder that is computed without a model's own code, found by module names that families share.

Whether a family is computed rightly is not told by its name: what cannot be seen in its modules shows in its logits, which
whoever loads a checkpoint compares.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from tercet.errors import TercetError
from tercet.workers.attention import Sighting

LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm"}
MLP_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class Unfusable(TercetError):
    """The model has a structure that fused layers do not know."""


class LayerParts(NamedTuple):
    """One decoder layer: norm, attention, residual, norm, gated feed-forward, residual."""

    attention_norm: nn.Module
    attention: nn.Module
    mlp_norm: nn.Module
    mlp: nn.Module
    sighting: Sighting

    @classmethod
    def of(cls, layer: nn.Module, sighting: Sighting) -> "LayerParts":
        """Raises Unfusable."""
        parts = {name for name, _ in layer.named_children()}
        if parts != LAYER_PARTS:
            raise Unfusable(f"its layers are made of {', '.join(sorted(parts))}")
        attention, mlp = layer.get_submodule("self_attn"), layer.get_submodule("mlp")
        for module, known in ((attention, ATTENTION_PARTS), (mlp, MLP_PARTS)):
            strange = {name for name, _ in module.named_children()} - known
            if strange:
                raise Unfusable(f"it has {', '.join(sorted(strange))}")
        if sighting.module is not attention:
            raise Unfusable("something else than self_attn attends")
        return cls(
            layer.get_submodule("input_layernorm"),
            attention,
            layer.get_submodule("post_attention_layernorm"),
            mlp,
            sighting,
        )

    def head_norms(self) -> tuple[nn.Module, nn.Module] | None:
        """What queries and keys go through before they are turned. Raises Unfusable."""
        q_norm = getattr(self.attention, "q_norm", None)
        k_norm = getattr(self.attention, "k_norm", None)
        if q_norm is None and k_norm is None:
            return None
        if not isinstance(q_norm, nn.Module) or not isinstance(k_norm, nn.Module):
            raise Unfusable("only one of queries and keys has a norm")
        return q_norm, k_norm


def layers_of(model: PreTrainedModel, sightings: Sequence[Sighting]) -> list[LayerParts]:
    """In order. Raises Unfusable."""
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, nn.ModuleList) or len(layers) != len(sightings):
        raise Unfusable("its layers are not where they are looked for")
    return [LayerParts.of(*pair) for pair in zip(layers, sightings, strict=True)]


def last_norm(model: PreTrainedModel) -> nn.Module:
    """The one behind all layers. Raises Unfusable."""
    norm = getattr(model.base_model, "norm", None)
    if not isinstance(norm, nn.Module):
        raise Unfusable("its last norm is not where it is looked for")
    return norm


def rotary_table(model: PreTrainedModel, positions: int) -> torch.Tensor:
    """fp32 `[positions, 2F]`: cosines of each position's angles, then sines. Raises Unfusable."""
    rotary = getattr(model.base_model, "rotary_emb", None)
    if rotary is None:
        raise Unfusable("it has no rotary positions")
    x = torch.zeros((1, 1, 1), device=model.device)
    ids = torch.arange(positions, device=model.device)[None]
    try:
        cos_1SE, sin_1SE = rotary(x, ids)
    except (TypeError, ValueError, AttributeError) as exc:
        raise Unfusable(f"its rotary positions want something else: {exc}") from exc
    half = cos_1SE.shape[-1] // 2
    for table in (cos_1SE, sin_1SE):
        if not torch.equal(table[..., :half], table[..., half:]):
            raise Unfusable("its rotary positions have another layout")
    return torch.cat([cos_1SE[0, :, :half], sin_1SE[0, :, :half]], dim=1).contiguous()
