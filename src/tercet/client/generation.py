"""What a caller gets: plain data, no protobuf."""

from dataclasses import dataclass
from typing import Self

from tercet.ids import RequestId, WorkerId
from tercet.pb import tercet_pb2 as pb
from tercet.request import FinishReason, TokenLogprobs

_FINISH = {
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}


@dataclass(frozen=True, slots=True)
class Token:
    """One output token; its text begins at character `text_offset` of its choice's text."""

    id: int
    text_offset: int
    logprobs: TokenLogprobs | None

    @classmethod
    def of(cls, token: pb.Token) -> Self:
        if not token.HasField("logprob"):
            return cls(token.id, token.text_offset, None)
        top = [(other.token_id, other.logprob) for other in token.top]
        return cls(token.id, token.text_offset, TokenLogprobs(token.logprob, top))


@dataclass(frozen=True, slots=True)
class Delta:
    """What is new in one choice; its last one has a finish reason."""

    choice: int
    text: str
    tokens: tuple[Token, ...]
    finish: FinishReason | None

    @classmethod
    def of(cls, delta: pb.Delta) -> Self:
        tokens = tuple(Token.of(token) for token in delta.tokens)
        return cls(delta.choice, delta.text, tokens, _FINISH.get(delta.finish_reason))

    @property
    def token_ids(self) -> list[int]:
        return [token.id for token in self.tokens]


Choice = Delta
"""A whole choice looks like a single delta with everything in it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts; a prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Route:
    """Where a choice was generated, and how fast."""

    choice: int
    prefill_worker: WorkerId | None
    """None when the decode worker did everything."""
    decode_worker: WorkerId | None
    pulled_bytes: int
    """KV bytes that the decode worker pulled from the prefill worker."""
    ttft_ms: float | None
    itl_ms: float | None
    replays: int

    @classmethod
    def of(cls, route: pb.Route) -> Self:
        return cls(
            choice=route.choice,
            prefill_worker=WorkerId(route.prefill_worker) if route.prefill_worker else None,
            decode_worker=WorkerId(route.decode_worker) if route.decode_worker else None,
            pulled_bytes=route.pulled_bytes,
            ttft_ms=route.ttft_ms if route.HasField("ttft_ms") else None,
            itl_ms=route.itl_ms if route.HasField("itl_ms") else None,
            replays=route.replays,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known when a call is complete."""

    usage: Usage
    routes: tuple[Route, ...]
    """By choice."""

    @classmethod
    def of(cls, final: pb.Final) -> Self:
        usage = final.usage
        return cls(
            Usage(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            tuple(Route.of(route) for route in final.routes),
        )


@dataclass(frozen=True, slots=True)
class Generation:
    """A complete answer."""

    request_id: RequestId
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    routes: tuple[Route, ...]

    @classmethod
    def of(cls, response: pb.GenerateResponse) -> Self:
        summary = Summary.of(response.final)
        return cls(
            RequestId(response.request_id),
            response.model,
            tuple(Delta.of(choice) for choice in response.choices),
            summary.usage,
            summary.routes,
        )

    @property
    def text(self) -> str:
        """The first choice's text."""
        return self.choices[0].text


@dataclass(frozen=True, slots=True)
class Model:
    """A model served."""

    name: str
    created_unix_s: int
    context_tokens_max: int

    @classmethod
    def of(cls, model: pb.Model) -> Self:
        return cls(model.name, model.created_unix_s, model.context_tokens_max)
