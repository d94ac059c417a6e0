"""What one step computes, chunks of sequences, and what comes of one. Made by the scheduler, run by `forward`."""

from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from tercet.request import TokenLogprobs
from tercet.workers.sequence import Sequence


class Chunk(msgspec.Struct, frozen=True):
    """The next `tokens` tokens of a sequence, computed in one step."""

    sequence: Sequence
    tokens: int

    @property
    def completes(self) -> bool:
        """After it the next token can be drawn."""
        return self.tokens == self.sequence.remaining


class Drawn(NamedTuple):
    """A token; None when the model's logits are not numbers, and nothing can be drawn."""

    token: int | None
    logprobs: TokenLogprobs | None = None


@dataclass(slots=True)
class Batch:
    """What one step computes."""

    chunks: list[Chunk] = field(default_factory=list)
    begun: list[Sequence] = field(default_factory=list)
    """Sequences that left the queue for this step."""
    stuck: list[Sequence] = field(default_factory=list)
    """Sequences that need more blocks than there are; nothing but ending them helps."""
    premature: bool = False
    """What the step under way leaves must be known first."""
