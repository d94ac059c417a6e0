"""Mooncake's traces (FAST'25): JSON lines with the hashes of 512-token blocks.

An id determines the block's whole prefix, so it only needs spreading to be a name. The last id may stand for a partial
block; only full blocks can be shared, so that one is dropped. The conversation trace's arrivals are bundled every three
seconds; `spread` undoes that.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from tercet.errors import TraceError
from tercet.simulator.traces.arrival import Arrival
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lines import PromptTokens, Tokens, json_lines
from tercet.simulator.traces.naming import named, salt_of

BLOCK_TOKENS = 512


class Line(msgspec.Struct):
    timestamp: Annotated[float, Meta(ge=0)]  # milliseconds
    input_length: PromptTokens
    output_length: Tokens
    hash_ids: list[Annotated[int, Meta(ge=0)]]


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """The file's requests; those without output are left out."""
    salt = salt_of("mooncake", path.name)
    for number, line in json_lines(path, Line):
        blocks = -(-line.input_length // BLOCK_TOKENS)
        if len(line.hash_ids) != blocks:
            reason = f"{len(line.hash_ids)} ids, where {line.input_length} tokens are {blocks} blocks of {BLOCK_TOKENS}"
            raise TraceError(str(path), number, "hash_ids", reason)
        if not line.output_length:
            remarks["no output: left out"] += 1
            continue
        full = line.hash_ids[: line.input_length // BLOCK_TOKENS]
        names = named(salt, full)
        yield Arrival(line.timestamp / 1e3, line.input_length, line.output_length, names)


def recognises(path: Path, head: str) -> bool:
    return '"timestamp"' in head and re.search(r'"hash_ids":\s*\[', head) is not None


MOONCAKE = ArrivalFormat("mooncake", recognises, read, BLOCK_TOKENS)
