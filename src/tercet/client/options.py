"""What a caller may ask for, and the message it becomes. Values are judged by the server alone."""

from collections.abc import Mapping, Sequence
from typing import NotRequired, TypedDict

from tercet.errors import InvalidRequest
from tercet.pb import tercet_pb2 as pb


class ChatMessage(TypedDict):
    """One message of a chat."""

    role: str
    content: str
    name: NotRequired[str]


class Options(TypedDict, total=False):
    """Options of a generation, by keyword. Defaults are the server's: those of the HTTP API."""

    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    stop_token_ids: Sequence[int]
    min_tokens: int
    ignore_eos: bool
    logprobs: int
    n: int
    stop: str | Sequence[str]
    priority: int
    request_id: str
    """For `cancel`; one call at a time may use it."""
    cache_salt: str
    session: str
    tenant: str
    kv_ttl_s: float
    template_options: Mapping[str, str | float | bool | None]


SAMPLING_FIELDS = frozenset(field.name for field in pb.Sampling.DESCRIPTOR.fields)
REQUEST_FIELDS = frozenset(
    {"model", "n", "priority", "request_id", "cache_salt", "session", "tenant", "kv_ttl_s"}
)


def build_request(
    prompt: str | None,
    messages: Sequence[ChatMessage] | None,
    token_ids: Sequence[int] | None,
    options: Options,
) -> pb.GenerateRequest:
    """The message for exactly one of the three kinds of prompt. Raises InvalidRequest for what no message can say."""
    if sum(given is not None for given in (prompt, messages, token_ids)) != 1:
        raise InvalidRequest("prompt", "give exactly one of prompt, messages and token_ids")
    unknown = set(options) - SAMPLING_FIELDS - REQUEST_FIELDS - {"stop", "template_options"}
    if unknown:
        raise InvalidRequest(min(unknown), "is not an option")
    try:
        request = _request(options)
        if prompt is not None:
            request.text = prompt
        elif token_ids is not None:
            request.tokens.ids.extend(token_ids)
        else:
            request.chat.messages.extend(pb.ChatMessage(**message) for message in messages or ())
            request.chat.template_options.update(dict(options.get("template_options", {})))
    except (TypeError, ValueError) as exc:
        # Protobuf names the field in its message, as far as it knows it.
        raise InvalidRequest("", f"not a valid request: {exc}") from exc
    return request


def _request(options: Options) -> pb.GenerateRequest:
    sampling = {name: value for name, value in options.items() if name in SAMPLING_FIELDS}
    plain = {name: value for name, value in options.items() if name in REQUEST_FIELDS}
    stop = options.get("stop", ())
    return pb.GenerateRequest(
        sampling=pb.Sampling(**sampling),  # type: ignore[arg-type]  # checked by protobuf itself
        stop=[stop] if isinstance(stop, str) else stop,
        **plain,  # type: ignore[arg-type]
    )
