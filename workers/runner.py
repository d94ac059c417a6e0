"""What the engine asks of a model: keep KV in a pool, and turn slices of requests into logits.

Knows nothing of requests, queues or sampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from tercet.errors import TercetError
from tercet.workers.kv_pool import KvPool

BetweenLayers = Callable[[], None]
"""Called once in each layer, before it attends. It may run other slices through the model before it returns."""


def go_on() -> None:
    """Nobody is to come between."""


class RunnerLost(TercetError):
    """The runner will never compute again; nothing but another process in its place helps."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One request's share of a step; valid during the call only, the lists belong to the engine."""

    tokens: list[int]
    start: int
    """Position of `tokens[0]`; the KV of the positions before it is in `blocks`."""
    blocks: Sequence[int]
    """Block table covering at least `start + len(tokens)` tokens."""
    sample: bool
    """Logits are wanted for the last token."""


class Runner(Protocol):
    """A model with its KV memory."""

    kv: KvPool

    @property
    def vocab_size(self) -> int: ...
    @property
    def context_tokens_max(self) -> int: ...
    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    @property
    def compat(self) -> str:
        """Workers with equal keys can read each other's KV."""
        ...

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        """Writes the slices' KV; returns fp32 logits `[slices with sample, vocab]` in the order of the slices."""
        ...
