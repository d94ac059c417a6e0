"""BurstGPT's CSV: times, lengths and, in its later files, sessions; contents are unknown.

Assumed: a request of a session continues the one before it, prompt and answer, if its prompt is at least as long as both;
a shorter one cannot hold them and starts the session's context anew. A row without response tokens is a failed request and
is left out, as is one without request tokens.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tercet.simulator.traces.arrival import Arrival
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lines import Tokens, csv_rows, finite
from tercet.simulator.traces.naming import salt_of, stream_names


class Row(msgspec.Struct):
    at_s: float = msgspec.field(name="Timestamp")
    prompt_tokens: Tokens = msgspec.field(name="Request tokens")
    output_tokens: Tokens = msgspec.field(name="Response tokens")
    model: str = msgspec.field(name="Model", default="")
    session: str = msgspec.field(name="Session ID", default="")


@dataclass(slots=True)
class Context:
    """What a session has said so far: the row it began with stands for it."""

    began: int
    tokens: int


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """The file's requests that succeeded. Contexts are kept to the end: some 200 bytes a session."""
    salt = salt_of("burstgpt", path.name)
    contexts: dict[str, Context] = {}
    for number, row in csv_rows(path, Row):
        if not row.prompt_tokens or not row.output_tokens:
            remarks["failed: left out"] += 1
            continue
        context = contexts.get(row.session) if row.session else None
        if context is None or row.prompt_tokens < context.tokens:
            context = Context(number, 0)
            if row.session:
                contexts[row.session] = context
        context.tokens = row.prompt_tokens + row.output_tokens
        names = stream_names(salt, context.began, 0, row.prompt_tokens // options.block_tokens)
        at_s = finite(path, number, "Timestamp", row.at_s)
        yield Arrival(
            at_s, row.prompt_tokens, row.output_tokens, names, row.session, tenant=row.model
        )


def recognises(path: Path, head: str) -> bool:
    first = head.lstrip("\ufeff").partition("\n")[0]
    return first.startswith("Timestamp,") and "Request tokens" in first


BURSTGPT = ArrivalFormat("burstgpt", recognises, read)
