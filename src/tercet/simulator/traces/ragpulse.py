"""RAGPulse's JSON lines: prompts made of components (system prompt, passages, …), each an id.

A prompt is taken to be its components one after the other: system prompt, passages, history, web search, user input. Files
beside the trace say how long each is. Blocks are cut through that without regard for components: a block's name stands for
all components before its end and the place within the last one. What follows a component of unknown length, and the few
tokens by which a prompt is longer than its components, is shared with nobody.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from tercet.errors import TraceError
from tercet.router.prefix_names import mix
from tercet.simulator.traces.arrival import Arrival
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lines import PromptTokens, Tokens, json_lines
from tercet.simulator.traces.naming import salt_of, stream_names

Id = Annotated[int, Meta(ge=0)]


class HashIds(msgspec.Struct):
    sys_prompt: list[Id] = []
    passages_ids: list[Id] = []
    history: list[Id] = []
    web_search: list[Id] = []
    user_input: list[Id] = []

    @property
    def in_order(self) -> tuple[list[Id], ...]:
        """As LENGTH_FILES."""
        return (
            self.sys_prompt,
            self.passages_ids,
            self.history,
            self.web_search,
            self.user_input,
        )


class Line(msgspec.Struct):
    timestamp: Annotated[float, Meta(ge=0)]
    input_length: PromptTokens
    output_length: Tokens
    hash_ids: HashIds
    session_id: str = ""


LENGTH_FILES = (
    ("1_sys_prompt.jsonl", "sys_prompt_id"),
    ("2_passages.jsonl", "passage_id"),
    ("3_history.jsonl", "history_id"),
    ("5_web_search.jsonl", "web_search_id"),
    ("4_user_input.jsonl", "user_input_id"),
)


class Component(NamedTuple):
    name: int
    tokens: int | None


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """The file's requests; those without output are left out."""
    salt, block_tokens = salt_of("ragpulse", path.name), options.block_tokens
    lengths = [_lengths(path.with_name(name), field) for name, field in LENGTH_FILES]
    for number, line in json_lines(path, Line, strict=False):
        if not line.output_length:
            remarks["no output: left out"] += 1
            continue
        components = [
            Component(mix(id * len(lengths) + kind), lengths[kind].get(id))
            for kind, ids in enumerate(line.hash_ids.in_order)
            for id in ids
        ]
        if any(component.tokens is None for component in components):
            remarks["component of unknown length: prompt not shared from there"] += 1
        shared = chained_names(salt, components, block_tokens, line.input_length)
        rest = stream_names(salt, number, len(shared), line.input_length // block_tokens)
        yield Arrival(
            line.timestamp,
            line.input_length,
            line.output_length,
            (*shared, *rest),
            session=line.session_id,
        )


def chained_names(
    chain: int, components: Iterable[Component], block_tokens: int, prompt_tokens: int
) -> list[int]:
    """The names of the full blocks that end within the prompt and within components of known length."""
    names: list[int] = []
    start = 0
    for component in components:
        if component.tokens is None:
            break
        chain = mix(chain ^ component.name)
        end = min(start + component.tokens, prompt_tokens)
        first = (len(names) + 1) * block_tokens
        names += [mix(chain + cut - start) for cut in range(first, end + 1, block_tokens)]
        start += component.tokens
    return names


def _lengths(path: Path, field: str) -> dict[int, int]:
    """Tokens by id; nothing if there is no such file."""
    lengths: dict[int, int] = {}
    if path.exists():
        for number, row in json_lines(path, dict[str, Id]):
            if field not in row or "token_length" not in row:
                raise TraceError(str(path), number, field, "needs this id and token_length")
            lengths[row[field]] = row["token_length"]
    return lengths


def recognises(path: Path, head: str) -> bool:
    return '"hash_ids"' in head and '"sys_prompt"' in head


RAGPULSE = ArrivalFormat("ragpulse", recognises, read)
