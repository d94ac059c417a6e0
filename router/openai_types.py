"""Bodies of OpenAI-compatible requests, as clients may send them. Fields marked with * are extensions.

A field that OpenAI has and we cannot serve is declared too, so that it can be refused by name unless it asks for nothing.
Values are judged in `call.py`; here are only shapes.
"""

from typing import Literal

import msgspec

from tercet.router.chat import TemplateOption


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What chat and plain completions share. None is what OpenAI's clients send for a field that was not set."""

    model: str
    n: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Names the end user; nothing depends on it."""

    top_k: int | None = None
    """*"""
    min_p: float | None = None
    """*"""
    repetition_penalty: float | None = None
    """*"""
    min_tokens: int | None = None
    """*"""
    ignore_eos: bool | None = None
    """*"""
    stop_token_ids: list[int] | None = None
    """*"""
    priority: int | None = None
    """* Higher runs first."""
    cache_salt: str | None = None
    """* Cached prompts are shared only among requests with the same salt."""
    kv_ttl_s: float | None = None
    """* The next turn of this conversation will probably come within so many seconds."""


class ContentPart(msgspec.Struct, frozen=True):
    """One part of a message's content; other kinds than text are recognised in order to be refused."""

    type: str
    text: str | None = None


class SentFunction(msgspec.Struct, frozen=True):
    """A function call of the past; `arguments` is JSON text."""

    name: str
    arguments: str


class SentToolCall(msgspec.Struct, frozen=True):
    """A tool call of the past."""

    id: str
    function: SentFunction
    type: Literal["function"] = "function"


class SentMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message as sent, including what clients send back of an answer they got."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    """*"""
    tool_calls: list[SentToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    annotations: msgspec.Raw = msgspec.Raw(b"null")
    audio: msgspec.Raw = msgspec.Raw(b"null")
    function_call: msgspec.Raw = msgspec.Raw(b"null")


class ResponseFormat(msgspec.Struct, frozen=True):
    """Only `text` is served."""

    type: str


class ChatBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: list[SentMessage]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    prompt_cache_key: str | None = None
    """Calls with the same key are sent to the same workers where that helps."""
    chat_template_kwargs: dict[str, TemplateOption] | None = None
    """* Given to the chat template, such as `enable_thinking`."""
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None

    tools: msgspec.Raw = msgspec.Raw(b"null")
    tool_choice: msgspec.Raw = msgspec.Raw(b"null")
    parallel_tool_calls: msgspec.Raw = msgspec.Raw(b"null")
    functions: msgspec.Raw = msgspec.Raw(b"null")
    function_call: msgspec.Raw = msgspec.Raw(b"null")
    modalities: list[str] | None = None
    audio: msgspec.Raw = msgspec.Raw(b"null")
    prediction: msgspec.Raw = msgspec.Raw(b"null")
    reasoning_effort: msgspec.Raw = msgspec.Raw(b"null")
    verbosity: msgspec.Raw = msgspec.Raw(b"null")
    web_search_options: msgspec.Raw = msgspec.Raw(b"null")


class CompletionBody(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: str | list[str | int | list[int]]
    """A text, several texts, token ids, or several lists of token ids."""
    logprobs: int | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None
