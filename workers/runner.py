"""What the engine asks of a model: keep KV in a pool, and turn slices of requests into logits.

Knows nothing of requests, queues or sampling.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch

from tercet.errors import TercetError
from tercet.request import Sampling
from tercet.workers.kv_pool import KvPool

BetweenLayers = Callable[[], None]
"""Called once in each layer, before it attends. It may run other slices through the model before it returns."""


def go_on() -> None:
    """Nobody is to come between."""


class RunnerLost(TercetError):
    """The runner will never compute again; nothing but another process in its place helps."""


class Slice(NamedTuple):
    """One request's share of a step; valid during the call only, the lists belong to the engine."""

    tokens: list[int]
    start: int
    """Position of `tokens[0]`; the KV of the positions before it is in `blocks`."""
    blocks: Sequence[int]
    """Block table covering at least `start + len(tokens)` tokens."""
    sample: bool
    """Logits are wanted for the last token."""
    request: int = -1
    """Whose it is: a number that no other request of this runner's life has."""
    fed: bool = False
    """One more token belongs behind `tokens`: the one that the launch before draws for this request."""

    @property
    def end(self) -> int:
        """Tokens whose KV is in `blocks` after this step."""
        return self.start + len(self.tokens) + self.fed


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


class Draws(Protocol):
    """Tokens on their way from the device."""

    def wait(self) -> list[int | None]:
        """One for each slice with `sample`, None where logits are not numbers. Raises whatever computing them raised."""
        ...


@runtime_checkable
class DrawingRunner(Runner, Protocol):
    """One whose device draws tokens itself, and feeds them to the next step before the host has them."""

    def launch(self, slices: Sequence[Slice], samplings: Sequence[Sampling]) -> Draws:
        """As `forward`, but returns before it is done. Launches are computed in order, and `forward` after all of them.

        `samplings` are those of the slices with `sample`; of each, `temperature`, `top_k`, `top_p`, `min_p` and `seed` count.
        """
        ...
