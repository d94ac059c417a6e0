"""How a layer turns products of queries and keys into weights."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class SoftmaxRule:
    """Constant over a layer's life. Weights are `softmax(cap(scale * q·k))` over the visible positions and the sink."""

    scale: float
    window: int = 0
    """Positions visible from one row, its own included; 0 is all before it."""
    softcap: float = 0.0
    """`cap(x) = softcap * tanh(x / softcap)`; 0 is no cap."""
    sinks: torch.Tensor | None = None
    """One logit a query head that takes part in the softmax and stands for no value."""
