"""Puts paged attention behind transformers' attention interface.

Each attention module of a loaded model carries its own `PagedLayer`; what changes from step to step is in the one
`Step` they share. Knows how modules hand over queries, keys and values, and no family by name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from transformers import AttentionInterface

from tercet.kernels.paged_attention import PagedAttention
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule
from tercet.workers.runner import BetweenLayers, go_on

ATTENTION_NAME = "tercet_paged"
"""Under this name the interface finds `attend`. No mask function has this name, so transformers builds no mask."""

LAYER_ATTRIBUTE = "tercet_layer"


class LayerAttention(Protocol):
    """What an attention module is given to attend with. Shapes `[1, H or G, N, D]` in, `[1, N, H, D]` out."""

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: SoftmaxRule,
    ) -> torch.Tensor: ...


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_options: object,
) -> tuple[torch.Tensor, None]:
    """The attention function of the interface; the module must have been given a layer."""
    layer: LayerAttention = getattr(module, LAYER_ATTRIBUTE)
    rule = SoftmaxRule(
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window or 0,
        softcap=softcap or 0.0,
        sinks=s_aux,
    )
    return layer(module, query, key, value, rule), None


def register_attention() -> None:
    """Makes `attend` known to transformers; idempotent."""
    AttentionInterface.register(ATTENTION_NAME, attend)


class Step:
    """The batch being computed, while it is, and what is to be done between two layers of it."""

    __slots__ = ("_batch", "_between_layers")

    def __init__(self) -> None:
        self._batch: PagedBatch | None = None
        self._between_layers: BetweenLayers = go_on

    @contextmanager
    def running(self, batch: PagedBatch, between_layers: BetweenLayers) -> Iterator[None]:
        """Within this context the model's layers attend as `batch` says. Another one may run `between_layers` of this."""
        outer = (self._batch, self._between_layers)
        self._batch, self._between_layers = batch, between_layers
        try:
            yield
        finally:
            self._batch, self._between_layers = outer

    def pause(self) -> None:
        """The running batch is about to attend in its next layer: modules hold nothing of it but what is on the stack."""
        self._between_layers()

    @property
    def batch(self) -> PagedBatch:
        assert self._batch is not None, "no step is running"
        return self._batch


@dataclass(frozen=True, slots=True)
class PagedLayer:
    """One layer's attention over its own pages, `[B, 2, G, T, D]`."""

    pages_B2GTD: torch.Tensor
    paged_attention: PagedAttention
    step: Step

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: SoftmaxRule,
    ) -> torch.Tensor:
        self.step.pause()
        out_NHD = self.paged_attention(
            _rows(query), _rows(key), _rows(value), self.pages_B2GTD, self.step.batch, rule
        )
        return out_NHD[None]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one attention module handed over during a probe."""

    module: nn.Module
    query_shape: torch.Size
    key_shape: torch.Size
    value_shape: torch.Size
    rule: SoftmaxRule


class Probe:
    """Attention that notes who called, and answers with zeros."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        rule: SoftmaxRule,
    ) -> torch.Tensor:
        self.sightings.append(Sighting(module, query.shape, key.shape, value.shape, rule))
        _, heads, rows, _ = query.shape
        return value.new_zeros((1, rows, heads, value.shape[-1]))


@contextmanager
def attention_everywhere(model: nn.Module, layer: LayerAttention) -> Iterator[None]:
    """Gives `layer` to every module of `model` for a while: for finding out which ones attend."""
    for module in model.modules():
        setattr(module, LAYER_ATTRIBUTE, layer)
    try:
        yield
    finally:
        for module in model.modules():
            delattr(module, LAYER_ATTRIBUTE)


def _rows(tensor_1HND: torch.Tensor) -> torch.Tensor:
    """`[1, H, N, D]` as `[N, H, D]`, with `D` contiguous."""
    rows = tensor_1HND[0].transpose(0, 1)
    return rows if rows.stride(-1) == 1 else rows.contiguous()
