"""Azure's LLM inference traces (Splitwise, ISCA'24): CSV with times and lengths, and nothing about contents.

So no request shares anything with another.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from tercet.errors import TraceError
from tercet.simulator.traces.arrival import Arrival
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lines import PromptTokens, Tokens, csv_rows
from tercet.simulator.traces.naming import salt_of, stream_names


class Row(msgspec.Struct):
    time: str = msgspec.field(name="TIMESTAMP")
    prompt_tokens: PromptTokens = msgspec.field(name="ContextTokens")
    output_tokens: Tokens = msgspec.field(name="GeneratedTokens")


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """The file's requests, timed from the first row; those without output are left out."""
    salt, start = salt_of("azure", path.name), None
    for number, row in csv_rows(path, Row):
        try:
            time = datetime.fromisoformat(row.time)
            start = start or time
            at_s = (time - start).total_seconds()
        except (ValueError, TypeError) as exc:
            raise TraceError(str(path), number, "TIMESTAMP", str(exc)) from exc
        if not row.output_tokens:
            remarks["no output: left out"] += 1
            continue
        names = stream_names(salt, number, 0, row.prompt_tokens // options.block_tokens)
        yield Arrival(at_s, row.prompt_tokens, row.output_tokens, names)


def recognises(path: Path, head: str) -> bool:
    return head.lstrip("\ufeff").startswith("TIMESTAMP,ContextTokens,GeneratedTokens")


AZURE = ArrivalFormat("azure", recognises, read)
