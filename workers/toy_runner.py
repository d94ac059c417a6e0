"""A runner without a model, for tests of everything around one: its logits are a digest of the KV it reads back.

Every token writes numbers that depend on itself and its position into the real `KvPool`; the logits of a token are computed
from what then lies in the blocks of all positions up to it. A block that was lost, swapped, stale or torn changes the
output, so a test that compares tokens is a test of the KV.
"""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from tercet.config import EngineConfig
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.runner import BetweenLayers, Slice, go_on

_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(31)
_TOP = np.uint64(40)


def _scramble(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spreads each word's bits; wraps modulo 2^64."""
    words = (words ^ (words >> _SHIFT)) * _ODD
    return (words ^ (words >> _SHIFT)) * _ODD


class ToyRunner:
    """`step_s` is slept in every step, for tests that need time to interfere."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        vocab_size: int = 64,
        context_tokens_max: int = 4096,
        eos_token_ids: frozenset[int] = frozenset(),
        layers: int = 2,
        head_dim: int = 4,
        step_s: float = 0.0,
    ) -> None:
        geometry = KvGeometry(layers, 1, head_dim, config.block_tokens, torch.float32)
        self.kv = KvPool(geometry, config.kv_blocks)
        self.vocab_size = vocab_size
        self.context_tokens_max = context_tokens_max
        self.eos_token_ids = eos_token_ids
        self.compat = f"toy/{geometry.block_shape}"
        self._step_s = step_s
        self._lanes = layers * 2 * head_dim
        self._memory = self.kv.tensor.numpy()

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        if self._step_s:
            time.sleep(self._step_s)
        written = [self._kv_of(part) for part in slices]
        for layer in range(self.kv.geometry.layers):
            between_layers()
            for part, values in zip(slices, written, strict=True):
                blocks, slots = self._places(part, part.start)
                self._memory[:, layer][blocks, :, :, slots, :] = values[:, layer]
        rows = [self._logits(part) for part in slices if part.sample]
        return torch.from_numpy(np.stack(rows) if rows else np.empty((0, self.vocab_size), "f4"))

    def _places(self, part: Slice, first: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Block numbers and slots of the positions from `first` to the slice's end."""
        block_tokens = self.kv.geometry.block_tokens
        positions = np.arange(first, part.start + len(part.tokens), dtype=np.intp)
        return np.asarray(part.blocks, dtype=np.intp)[positions // block_tokens], (
            positions % block_tokens
        )

    def _kv_of(self, part: Slice) -> npt.NDArray[np.float32]:
        """`[tokens, layers, 2, kv_heads, head_dim]`"""
        positions = np.arange(part.start, part.start + len(part.tokens), dtype=np.uint64)
        tokens = np.asarray(part.tokens, dtype=np.uint64)
        lanes = np.arange(self._lanes, dtype=np.uint64)
        words = _scramble((positions << _SHIFT) + tokens + np.uint64(1))[:, None] + lanes[None, :]
        values = (_scramble(words) >> _TOP).astype(np.float32)  # 24 bits: exact in fp32
        geometry = self.kv.geometry
        shape = (len(tokens), geometry.layers, 2, geometry.kv_heads, geometry.head_dim)
        return values.reshape(shape)

    def _logits(self, part: Slice) -> npt.NDArray[np.float32]:
        """`[vocab]`: a digest of everything in the cache up to the slice's end, spread over the vocabulary."""
        blocks, slots = self._places(part, 0)
        content = self._memory[blocks, :, :, :, slots, :].reshape(len(blocks), self._lanes)
        weights = _scramble(np.arange(content.size, dtype=np.uint64)).reshape(content.shape)
        digest = (content.astype(np.uint64) * (weights | np.uint64(1))).sum(dtype=np.uint64)
        words = _scramble(_scramble(digest + np.arange(self.vocab_size, dtype=np.uint64)))
        return (words >> _TOP).astype(np.float32) * np.float32(8.0 / 2**24)
