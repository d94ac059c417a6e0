"""Who may be computed amid a step: short prompts more urgent than the long one under way, between two of its layers. Pure.

After FlowPrefill (arXiv 2602.16603): execution can stop between layers, and is asked to only when somebody comes. Nothing of the
step is undone or done again; it waits while others pass through the model.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from tercet.workers.batch import Chunk
from tercet.workers.events import Command, DropOwner, Relieve, Reserve, Run, Unquarantine
from tercet.workers.sequence import Sequence

SHARE = 4
"""A step is made longer by interjections by at most one in so many of its prompt tokens."""


@dataclass(slots=True)
class StepUnderWay:
    """What a step that is being computed consists of, and how much it puts up with."""

    sequences: set[Sequence]
    longest: Sequence
    """Whose chunk is the longest: whoever is less urgent than it does not interrupt."""
    tokens_left: int
    """That others may still put in between."""

    @classmethod
    def of(cls, chunks: Iterable[Chunk]) -> "StepUnderWay":
        chunks = list(chunks)
        prompt_tokens = sum(chunk.tokens for chunk in chunks if chunk.sequence.remaining > 1)
        longest = max(chunks, key=lambda chunk: chunk.tokens).sequence
        return cls({chunk.sequence for chunk in chunks}, longest, prompt_tokens // SHARE)

    def concerned_by(self, command: Command) -> bool:
        """Whether the command may change a sequence whose KV is being written just now."""
        match command:
            case Run() | Reserve():
                return any(sequence.id == command.spec.id for sequence in self.sequences)
            case DropOwner():
                return any(sequence.owner == command.owner for sequence in self.sequences)
            case Relieve() | Unquarantine():
                return False
            case _:
                return any(sequence.id == command.request for sequence in self.sequences)
