"""As little of an HTTP client as the demo needs, from the standard library: streamed chat, and the records of requests."""

import http.client
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from tercet.client import ChatMessage
from tercet.errors import RequestFailed
from tercet.ids import RequestId
from tercet.router.record import RequestRecord

TIMEOUT_S = 60.0


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta


class _Chunk(msgspec.Struct, frozen=True):
    """The part of OpenAI's stream that carries text."""

    id: str
    choices: list[_Choice]


class _Ask(msgspec.Struct, frozen=True):
    """The body of a streamed chat request."""

    messages: Sequence[ChatMessage]
    model: str
    max_tokens: int
    temperature: float = 0.0
    stream: bool = True


def stream_chat(
    address: str, model: str, messages: Sequence[ChatMessage], max_tokens: int
) -> Iterator[tuple[RequestId, str]]:
    """The request's id and each new piece of its answer, from `http://address/v1`. Raises RequestFailed, OSError."""
    body = msgspec.json.encode(_Ask(messages, model, max_tokens))
    with _response(address, "POST", "/v1/chat/completions", body) as response:
        for line in response:
            data = line.removeprefix(b"data: ").strip()
            if not line.startswith(b"data: ") or data == b"[DONE]":
                continue
            chunk = msgspec.json.decode(data, type=_Chunk)
            for choice in chunk.choices:
                if choice.delta.content:
                    yield RequestId(chunk.id), choice.delta.content


def records(address: str, limit: int) -> list[RequestRecord]:
    """The last requests of the front door, newest first. Raises RequestFailed, OSError."""
    with _response(address, "GET", f"/tercet/requests?limit={limit}") as response:
        return msgspec.json.decode(response.read(), type=list[RequestRecord])


@contextmanager
def _response(
    address: str, method: str, path: str, body: bytes = b""
) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status != http.client.OK:
            text = response.read().decode(errors="replace")
            raise RequestFailed(f"{method} {path} was answered with {response.status}: {text}")
        yield response
    finally:
        connection.close()
