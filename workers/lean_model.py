"""A transformers model computed on a CPU by lean layers: its packed weights, and no code of its. See `decoder_form` for which.

Legend: N rows, C features between layers, R rows whose logits are wanted.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from transformers import PreTrainedModel

from tercet.kernels.compiler import CompilerUnavailable
from tercet.kernels.paged_attention import (
    AttentionMemory,
    LayerMemory,
    NativePagedAttention,
    PagedAttention,
)
from tercet.kernels.paged_batch import PagedBatch
from tercet.workers.attention import Sighting
from tercet.workers.decoder_form import Unfusable, last_norm, layers_of, rotary_table
from tercet.workers.kv_pool import KvPool
from tercet.workers.lean_layer import LayerKernels, StepMemory, widths_of
from tercet.workers.linear import PackedLinear
from tercet.workers.runner import BetweenLayers


class LeanModel:
    """Takes a model whose layers were made fast, and which goes on working. Raises Unfusable.

    Keys and values live in `kv`; positions from `positions` on have no rotation.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        sightings: Sequence[Sighting],
        kv: KvPool,
        attention: PagedAttention,
        positions: int,
    ) -> None:
        parts, head = layers_of(model, sightings), model.get_output_embeddings()
        if not isinstance(attention, NativePagedAttention) or not isinstance(head, PackedLinear):
            raise Unfusable("its attention or its head has no kernel here")
        self._embedding, self._head, self._attention = model.get_input_embeddings(), head, attention
        self._pages = [kv.tensor[:, layer] for layer in range(len(parts))]
        self._positions = positions
        try:
            kernels = LayerKernels(attention, rotary_table(model, positions))
        except CompilerUnavailable as exc:
            raise Unfusable(str(exc)) from exc
        forms = [kernels.heads(part) for part in parts]
        widths = {widths_of(part, form) for part, form in zip(parts, forms, strict=True)}
        if len(widths) > 1:
            raise Unfusable("its layers are of unlike sizes")
        self._heads, (self._widths,) = forms[0], widths
        norms = [*(part.attention_norm for part in parts), last_norm(model)]
        self._first_norm = kernels.norm(norms[0])
        self._layers = [
            kernels.layer(part, LayerMemory.of(pages, part.sighting.rule), following)
            for part, pages, (_, following) in zip(parts, self._pages, pairwise(norms), strict=True)
        ]

    def __call__(
        self,
        tokens: Sequence[int],
        batch: PagedBatch,
        sampled: Sequence[int],
        between_layers: BetweenLayers,
    ) -> torch.Tensor:
        """Logits after the rows `sampled`, `[R, vocabulary]`, in the model's type."""
        positions = batch.positions
        assert len(tokens) == batch.rows, (len(tokens), batch.rows)
        assert positions.max() < self._positions, (positions.max(), self._positions)
        step = StepMemory(len(tokens), self._widths, self._attention.dtype)
        step.x_NC.copy_(self._embedding(torch.tensor(tokens)))
        attend, turns = self._attend(step, batch), positions.ctypes.data
        self._first_norm(step.at.x, None, step.at.normed, step.rows)
        for layer in self._layers:
            layer(step, turns, attend, between_layers)
        wanted_RC = step.normed_NC
        if len(sampled) < step.rows:
            wanted_RC = wanted_RC[torch.tensor(sampled, dtype=torch.long)]
        return self._head.forward(wanted_RC)

    def _attend(self, step: StepMemory, batch: PagedBatch) -> Callable[[LayerMemory], None]:
        heads, q = self._heads, step.at.qkv
        head_bytes = heads.dim * self._attention.dtype.itemsize
        k = q + heads.queries * head_bytes
        v = k + heads.keys * head_bytes
        memory = AttentionMemory(q, k, v, step.at.seen, *(heads.row, heads.dim) * 3)
        form = (heads.queries, heads.keys, heads.dim)
        return self._attention.bind(memory, form, self._pages[0], batch)
