"""kv-cache-tester's agentic sessions: JSON lines (or .xz), one conversation a line, with ids of 64-token blocks.

Ids determine their prefix and hold within one conversation, so nothing is shared between conversations, although in truth
their system prompts may be. Simplified:

- Requests of a session that overlapped are sent one after the other. The think time is the recorded one, but never more than
  the recorded distance to the request before.
- A sub-agent is a session of its own, started by the turn before it. Its parent does not wait for it: the parent's
  recorded think time already holds that wait.
- A request that generated nothing generates one token: its prompt was computed all the same.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tercet.errors import TraceError
from tercet.router.prefix_names import mix
from tercet.simulator.traces.arrival import ClosedSession, Spawn, Turn
from tercet.simulator.traces.format import ReadOptions, SessionFormat
from tercet.simulator.traces.lines import PromptTokens, Tokens, json_lines
from tercet.simulator.traces.naming import salt_of

BLOCK_TOKENS = 64

Seconds = Annotated[float, Meta(ge=0)]


class Request(msgspec.Struct, tag_field="type", tag="n"):
    t: Seconds
    prompt_tokens: PromptTokens = msgspec.field(name="in")
    output_tokens: Tokens = msgspec.field(name="out")
    hash_ids: list[Annotated[int, Meta(ge=0)]]
    api_time: Seconds = 0.0
    think_time: float | None = None

    @property
    def ended_s(self) -> float:
        return self.t + self.api_time


class StreamedRequest(Request, tag_field="type", tag="s"):
    pass


class SubAgent(msgspec.Struct, tag_field="type", tag="subagent"):
    t: Seconds
    requests: "Sequence[Request | StreamedRequest | SubAgent]"


class Conversation(msgspec.Struct):
    id: str
    block_size: Literal[64]
    requests: Sequence[Request | StreamedRequest | SubAgent]
    hash_id_scope: Literal["local", "global"] = "local"


class Names(dict[int, int]):
    """Names by id, made when first asked for: turns repeat nearly all of their ids."""

    def __init__(self, salt: int) -> None:
        self.salt = salt

    def __missing__(self, id: int) -> int:
        self[id] = name = mix(self.salt + id)
        return name


def read(path: Path, options: ReadOptions) -> Iterator[ClosedSession]:
    """The file's conversations, each followed by its sub-agents. All start at once."""
    for number, conversation in json_lines(path, Conversation):
        local = conversation.hash_id_scope == "local"
        names = Names(salt_of("sessions", path.name, conversation.id if local else ""))
        try:
            yield from _unfolded(conversation.id, 0.0, conversation.requests, names, None)
        except ValueError as exc:
            raise TraceError(str(path), number, "requests", str(exc)) from exc


def _unfolded(
    id: str,
    starts_s: float,
    requests: Sequence[Request | StreamedRequest | SubAgent],
    names: Names,
    spawned: Spawn | None,
) -> list[ClosedSession]:
    turns: list[Turn] = []
    below: list[ClosedSession] = []
    last: Request | None = None
    for request in requests:
        if isinstance(request, Request):
            turns.append(_turn(request, last, names))
            last = request
            continue
        spawn = Spawn(id, len(turns) - 1, max(0.0, request.t - last.ended_s)) if last else None
        child = f"{id}/{len(below) + 1}"
        below += _unfolded(child, starts_s + request.t, request.requests, names, spawn)
    own = [ClosedSession(id, starts_s, tuple(turns), spawned)] if turns else []
    return own + below


def _turn(request: Request, last: Request | None, names: Names) -> Turn:
    if len(request.hash_ids) != request.prompt_tokens // BLOCK_TOKENS:
        raise ValueError(f"{len(request.hash_ids)} hash_ids, where `in` is {request.prompt_tokens}")
    distance = max(0.0, request.t - (last.t if last else 0.0))
    think_s = distance if last is None or request.think_time is None else request.think_time
    return Turn(
        max(0.0, min(think_s, distance)),
        request.prompt_tokens,
        max(1, request.output_tokens),
        tuple(map(names.__getitem__, request.hash_ids)),
    )


def recognises(path: Path, head: str) -> bool:
    return '"block_size"' in head and '"requests"' in head


SESSIONS = SessionFormat("sessions", recognises, read, BLOCK_TOKENS)
