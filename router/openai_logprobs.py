"""Log-probabilities in the two shapes OpenAI has for them."""

from collections.abc import Callable, Sequence

import msgspec

from tercet.router.choice import OutputToken

Spelling = Callable[[int], bytes]
"""The bytes a token stands for."""

LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON cannot say."""


class TopLogprob(msgspec.Struct, frozen=True):
    """One alternative of a chat token."""

    token: str
    bytes: list[int]
    logprob: float


class ChatLogprob(msgspec.Struct, frozen=True):
    """One chat token."""

    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct, frozen=True):
    """`logprobs` of a chat choice."""

    content: list[ChatLogprob]
    refusal: None = None


class PlainLogprobs(msgspec.Struct, frozen=True):
    """`logprobs` of a plain choice: four lists of equal length."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


def chat_logprobs(tokens: Sequence[OutputToken], spelling: Spelling) -> ChatLogprobs:
    """For chat: text with U+FFFD for bytes that are no character, and the bytes themselves beside it."""
    content = []
    for token in tokens:
        if token.logprobs is None:
            continue
        raw = spelling(token.id)
        top = [
            TopLogprob(_text(other), list(other), _finite(logprob))
            for other, logprob in ((spelling(id_), value) for id_, value in token.logprobs.top)
        ]
        content.append(ChatLogprob(_text(raw), list(raw), _finite(token.logprobs.logprob), top))
    return ChatLogprobs(content)


def plain_logprobs(tokens: Sequence[OutputToken], spelling: Spelling) -> PlainLogprobs:
    """For plain completions: bytes that are no character are spelt out, so that alternatives stay apart."""
    known = [token for token in tokens if token.logprobs is not None]
    return PlainLogprobs(
        tokens=[_spelt(spelling(token.id)) for token in known],
        token_logprobs=[_finite(token.logprobs.logprob) for token in known if token.logprobs],
        top_logprobs=[
            {_spelt(spelling(id_)): _finite(value) for id_, value in token.logprobs.top}
            for token in known
            if token.logprobs
        ],
        text_offset=[token.offset for token in known],
    )


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _spelt(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _finite(logprob: float) -> float:
    return max(logprob, LEAST_LOGPROB)
