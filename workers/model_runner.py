"""The runner that computes: a transformers model with paged attention and fast linear layers.

Knows nothing of requests, queues or sampling. One thread at a time may call it.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import PreTrainedModel

from tercet.config import EngineConfig, ModelConfig
from tercet.kernels.paged_attention import best_paged_attention
from tercet.kernels.paged_batch import PagedBatch
from tercet.workers.activation import accelerate_activations
from tercet.workers.attention import LAYER_ATTRIBUTE, PagedLayer, Sighting, Step
from tercet.workers.checkpoint import Checkpoint, find_attention_layers, open_checkpoint
from tercet.workers.compat import compat_key
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.linear import accelerate_linears
from tercet.workers.norm import accelerate_norms
from tercet.workers.runner import BetweenLayers, Slice, go_on
from tercet.workers.trial import Trial


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
        self._give_pages(sightings, engine.threads)

    @classmethod
    def load(cls, model: ModelConfig, engine: EngineConfig) -> "ModelRunner":
        """Loads a checkpoint directory, and compares a short prompt with the model's own attention.

        Raises ModelUnsupported with the reason. `threads` holds for the whole process.
        """
        torch.set_num_threads(engine.threads)
        checkpoint = open_checkpoint(model)
        trial = Trial.of(checkpoint, engine)
        runner = cls.over(checkpoint, engine)
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
        device = self.kv.device
        tokens = torch.tensor([[t for part in slices for t in part.tokens]], device=device)
        positions = torch.from_numpy(batch.positions)[None].to(device, torch.long)
        last_rows = (batch.query_starts[1:] - 1).tolist()
        sampled = torch.tensor(
            [row for row, part in zip(last_rows, slices, strict=True) if part.sample],
            dtype=torch.long,
            device=device,
        )
        with self._step.running(batch, between_layers):
            output = self._model(
                input_ids=tokens, position_ids=positions, use_cache=False, logits_to_keep=sampled
            )
        logits: torch.Tensor = output.logits[0]
        return logits.float()

    def _give_pages(self, sightings: list[Sighting], threads: int) -> None:
        """Every attention module gets its own layer of the pool."""
        geometry = self.kv.geometry
        group = sightings[0].query_shape[1] // geometry.kv_heads
        attention = best_paged_attention(
            self.kv.device, geometry.dtype, geometry.head_dim, group, threads
        )
        for layer, sighting in enumerate(sightings):
            paged = PagedLayer(self.kv.tensor[:, layer], attention, self._step)
            setattr(sighting.module, LAYER_ATTRIBUTE, paged)


def _geometry(model: PreTrainedModel, sightings: list[Sighting], block_tokens: int) -> KvGeometry:
    _, kv_heads, _, head_dim = sightings[0].key_shape
    return KvGeometry(len(sightings), kv_heads, head_dim, block_tokens, model.dtype)
