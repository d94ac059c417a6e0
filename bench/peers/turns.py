"""Requests of a Mooncake-format trace, and the prompts that stand for them.

A trace names blocks of 512 tokens by hashes that cover the whole prefix; equal names mean equal prefixes. For engines of
small blocks each becomes 16 words: one that names the block, and fifteen that are the same in all.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

TRACE_BLOCK_TOKENS = 512
BLOCK_WORDS = 16
ANSWER = "tok"
FILLING = tuple(f"x{number}" for number in range(1, BLOCK_WORDS))


@dataclass(frozen=True, slots=True)
class Turn:
    """One request."""

    at_s: float
    blocks: tuple[int, ...]
    """Numbered from 0 in the order in which the trace first names them; the last one may be partial."""
    input_tokens: int
    output_tokens: int

    @property
    def prompt(self) -> str:
        return " ".join(word for block in self.blocks for word in (f"b{block}", *FILLING))


def turns(trace: Path, *, speedup: float, requests: int | None = None) -> list[Turn]:
    """The first requests of a trace, all of them without a number; the first one comes at 0."""
    numbers: dict[int, int] = {}
    with trace.open() as file:
        entries = [json.loads(line) for line in islice(file, requests)]
    begin_ms = entries[0]["timestamp"]
    return [
        Turn(
            at_s=(entry["timestamp"] - begin_ms) / 1e3 / speedup,
            blocks=tuple(numbers.setdefault(name, len(numbers)) for name in entry["hash_ids"]),
            input_tokens=entry["input_length"],
            output_tokens=entry["output_length"],
        )
        for entry in entries
    ]


def vocabulary(blocks: int) -> Iterator[str]:
    """Every word of prompts over so many different blocks; a word's place is its token id."""
    yield ANSWER
    yield from FILLING
    yield from (f"b{number}" for number in range(blocks))


def different_blocks(sequence: Sequence[Turn]) -> int:
    """How many different blocks these requests name."""
    return 1 + max(block for turn in sequence for block in turn.blocks)
