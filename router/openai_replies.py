"""Deltas become OpenAI-compatible replies: whole ones, or chunks of a stream.

Knows the two formats, chat and plain completions; nothing of HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from tercet.ids import RequestId
from tercet.request import FinishReason
from tercet.router.choice import Delta
from tercet.router.completion import TextUsage
from tercet.router.openai_logprobs import (
    ChatLogprobs,
    PlainLogprobs,
    chat_logprobs,
    plain_logprobs,
)

Spelling = Callable[[int], bytes]
"""The bytes a token stands for."""


class PromptDetails(msgspec.Struct, frozen=True):
    """Part of `usage`."""

    cached_tokens: int


class UsageReply(msgspec.Struct, frozen=True):
    """`usage`."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class Message(msgspec.Struct, frozen=True):
    """A chat choice's whole answer."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class MessageDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """A piece of a chat choice's answer; the first one names the role."""

    role: str = ""
    content: str | None = None


class ChatChoice(msgspec.Struct, frozen=True):
    """One whole choice."""

    index: int
    message: Message
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None


class ChatChunkChoice(msgspec.Struct, frozen=True):
    """What is new in one choice."""

    index: int
    delta: MessageDelta
    finish_reason: FinishReason | None
    logprobs: ChatLogprobs | None


class PlainChoice(msgspec.Struct, frozen=True):
    """A plain choice, whole or a piece: they look the same."""

    index: int
    text: str
    finish_reason: FinishReason | None
    logprobs: PlainLogprobs | None


class Reply(msgspec.Struct, frozen=True):
    """The frame around choices. `usage` is unset where a reply has none and null where it will come later."""

    id: RequestId
    object: str
    created: int
    model: str
    choices: Sequence[ChatChoice | ChatChunkChoice | PlainChoice]
    usage: UsageReply | msgspec.UnsetType | None = msgspec.UNSET
    system_fingerprint: None = None


@dataclass(frozen=True, slots=True)
class Head:
    """What all replies to one call have in common."""

    id: RequestId
    created: int
    model: str


class ReplyFormat(Protocol):
    """Writes one call's choices in one API's way."""

    whole_object: str
    chunk_object: str

    def whole(self, answer: Delta) -> ChatChoice | PlainChoice: ...
    def piece(self, delta: Delta) -> ChatChunkChoice | PlainChoice: ...


class ChatFormat:
    """Chat completions."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, spelling: Spelling, *, logprobs: bool) -> None:
        self._spelling = spelling
        self._logprobs = logprobs
        self._begun: set[int] = set()

    def whole(self, answer: Delta) -> ChatChoice:
        return ChatChoice(
            answer.choice, Message(answer.text), answer.finish, self._probabilities(answer)
        )

    def piece(self, delta: Delta) -> ChatChunkChoice:
        first = delta.choice not in self._begun
        self._begun.add(delta.choice)
        message = MessageDelta(
            "assistant" if first else "", delta.text if delta.text or first else None
        )
        return ChatChunkChoice(delta.choice, message, delta.finish, self._probabilities(delta))

    def _probabilities(self, delta: Delta) -> ChatLogprobs | None:
        return chat_logprobs(delta.tokens, self._spelling) if self._logprobs else None


class PlainFormat:
    """Plain ("legacy") completions."""

    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, spelling: Spelling, *, logprobs: bool) -> None:
        self._spelling = spelling
        self._logprobs = logprobs

    def whole(self, answer: Delta) -> PlainChoice:
        return self.piece(answer)

    def piece(self, delta: Delta) -> PlainChoice:
        logprobs = plain_logprobs(delta.tokens, self._spelling) if self._logprobs else None
        return PlainChoice(delta.choice, delta.text, delta.finish, logprobs)


class ReplyWriter:
    """Encodes replies to one call as JSON."""

    def __init__(self, head: Head, style: ReplyFormat, *, stream_usage: bool) -> None:
        self._head = head
        self._style = style
        self._stream_usage = stream_usage
        self._encoder = msgspec.json.Encoder()

    def whole(self, answers: Sequence[Delta], usage: TextUsage) -> bytes:
        """The body of a reply that is not streamed."""
        choices = [self._style.whole(answer) for answer in answers]
        return self._encode(self._style.whole_object, choices, _usage(usage))

    def chunk(self, delta: Delta) -> bytes:
        """One chunk of a stream, as JSON."""
        pending = None if self._stream_usage else msgspec.UNSET
        return self._encode(self._style.chunk_object, [self._style.piece(delta)], pending)

    def last_chunk(self, usage: TextUsage) -> bytes | None:
        """The chunk after the last one, for clients that asked for usage."""
        if not self._stream_usage:
            return None
        return self._encode(self._style.chunk_object, [], _usage(usage))

    def _encode(
        self,
        kind: str,
        choices: Sequence[ChatChoice | ChatChunkChoice | PlainChoice],
        usage: UsageReply | msgspec.UnsetType | None,
    ) -> bytes:
        head = self._head
        return self._encoder.encode(Reply(head.id, kind, head.created, head.model, choices, usage))


def _usage(usage: TextUsage) -> UsageReply:
    return UsageReply(
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.total_tokens,
        PromptDetails(usage.cached_tokens),
    )
