"""The runner that computes: a transformers model with paged attention and fast linear layers.

Knows nothing of requests, queues or sampling. One thread at a time may call it.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.kernels.paged_attention import PagedAttention, best_paged_attention
from tercet.kernels.paged_batch import PagedBatch
from tercet.workers.activation import accelerate_activations
from tercet.workers.attention import LAYER_ATTRIBUTE, PagedLayer, Sighting, Step
from tercet.workers.checkpoint import Checkpoint, find_attention_layers, open_checkpoint
from tercet.workers.compat import compat_key
from tercet.workers.decoder_form import Unfusable
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.lean_model import LeanModel
from tercet.workers.linear import accelerate_linears
from tercet.workers.norm import accelerate_norms
from tercet.workers.runner import BetweenLayers, Slice, go_on
from tercet.workers.trial import Trial

log = logging.getLogger(__name__)


class ModelRunner:
    """See `Runner`. Made by `load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        sightings: list[Sighting],
        engine: EngineConfig,
        ranks: int = 1,
    ) -> None:
        self._model: PreTrainedModel = checkpoint.model
        self._step = Step()
        self.kv = KvPool(
            _geometry(self._model, sightings, engine.block_tokens),
            engine.kv_blocks,
            self._model.device,
        )
        self.vocab_size = int(checkpoint.config.vocab_size)
        self.eos_token_ids = checkpoint.eos_token_ids
        self.context_tokens_max = checkpoint.context_tokens_max
        own = self.kv.geometry
        whole = replace(own, kv_heads=own.kv_heads * ranks)
        self.compat = compat_key(checkpoint.path, checkpoint.described, whole)
        attention = self._give_pages(sightings, engine.threads)
        self._lean = self._lean_model(sightings, attention)

    @classmethod
    def load(cls, model: ModelConfig, engine: EngineConfig) -> "ModelRunner":
        """Loads a checkpoint directory, and compares a short prompt with the model's own attention.

        Raises ModelUnsupported with the reason. `threads` holds for the whole process.
        """
        torch.set_num_threads(engine.threads)
        checkpoint = open_checkpoint(model)
        trial = Trial.of(checkpoint, engine)
        runner = cls.over(checkpoint, engine)
        try:
            trial.hold(runner)
        except ModelUnsupported as exc:
            if runner._lean is None:
                raise
            log.warning("this model runs on transformers' modules, not on lean layers: %s", exc)
            runner._lean = None
            trial.hold(runner)
        return runner

    @classmethod
    def over(cls, checkpoint: Checkpoint, engine: EngineConfig, ranks: int = 1) -> "ModelRunner":
        """Takes a loaded model, of whose heads this is one of `ranks` equal parts, and makes it fast."""
        accelerate_linears(checkpoint.model, engine.threads)
        accelerate_norms(checkpoint.model)
        if checkpoint.model.device.type == "cpu":
            accelerate_activations(checkpoint.model, checkpoint.model.dtype, engine.threads)
        sightings = find_attention_layers(checkpoint.model, checkpoint.config)
        return cls(checkpoint, sightings, engine, ranks)

    @torch.inference_mode()
    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        """See `Runner`."""
        batch = PagedBatch.of(
            [len(part.tokens) for part in slices],
            [part.start for part in slices],
            [part.blocks for part in slices],
            self.kv.geometry.block_tokens,
        )
        tokens = [token for part in slices for token in part.tokens]
        last_rows = (batch.query_starts[1:] - 1).tolist()
        sampled = [row for row, part in zip(last_rows, slices, strict=True) if part.sample]
        if self._lean is not None:
            return self._lean(tokens, batch, sampled, between_layers).float()
        return self._through_modules(tokens, batch, sampled, between_layers).float()

    def _through_modules(
        self,
        tokens: list[int],
        batch: PagedBatch,
        sampled: list[int],
        between_layers: BetweenLayers,
    ) -> torch.Tensor:
        device = self.kv.device
        positions = torch.from_numpy(batch.positions)[None].to(device, torch.long)
        with self._step.running(batch, between_layers):
            output = self._model(
                input_ids=torch.tensor([tokens], device=device),
                position_ids=positions,
                use_cache=False,
                logits_to_keep=torch.tensor(sampled, dtype=torch.long, device=device),
            )
        logits: torch.Tensor = output.logits[0]
        return logits

    def _lean_model(self, sightings: list[Sighting], attention: PagedAttention) -> LeanModel | None:
        """None where the model, or what it runs on, is of another kind."""
        room = min(self.context_tokens_max, self.kv.blocks * self.kv.geometry.block_tokens)
        try:
            return LeanModel(self._model, sightings, self.kv, attention, room)
        except Unfusable as exc:
            log.info("this model runs on transformers' modules: %s", exc)
            return None

    def _give_pages(self, sightings: list[Sighting], threads: int) -> PagedAttention:
        """Every attention module gets its own layer of the pool; returns what attends."""
        geometry = self.kv.geometry
        group = sightings[0].query_shape[1] // geometry.kv_heads
        attention = best_paged_attention(
            self.kv.device, geometry.dtype, geometry.head_dim, group, threads
        )
        for layer, sighting in enumerate(sightings):
            paged = PagedLayer(self.kv.tensor[:, layer], attention, self._step)
            setattr(sighting.module, LAYER_ATTRIBUTE, paged)
        return attention


def _geometry(model: PreTrainedModel, sightings: list[Sighting], block_tokens: int) -> KvGeometry:
    _, kv_heads, _, head_dim = sightings[0].key_shape
    return KvGeometry(len(sightings), kv_heads, head_dim, block_tokens, model.dtype)
