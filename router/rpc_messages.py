"""Protobuf messages of the public API become calls, and deltas become protobuf messages.

The only place besides `rpc.py` where a front door knows protobuf.
"""

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct

from tercet.errors import InvalidRequest
from tercet.ids import RequestId, new_request_id
from tercet.pb import tercet_pb2 as pb
from tercet.request import FinishReason, Sampling
from tercet.router.call import (
    NAME_CHARS_MAX,
    Call,
    ChatPrompt,
    Prompt,
    TextPrompt,
    TokenPrompt,
    random_seed,
)
from tercet.router.chat import ChatMessage, TemplateOption
from tercet.router.choice import Delta, OutputToken
from tercet.router.completion import Completion, TextUsage
from tercet.router.preparation import ModelCard
from tercet.router.record import RequestRecord

ROLES = ("system", "developer", "user", "assistant", "tool")

_FINISH = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}


def call_of(
    request: pb.GenerateRequest, model: ModelCard, deadline_s: float | None, tenant: str = ""
) -> Call:
    """The call that a message asks for; `tenant` came beside it, and says more than the message. Raises InvalidRequest for what no other part would notice."""
    if len(request.request_id) > NAME_CHARS_MAX:
        raise InvalidRequest("request_id", f"must have at most {NAME_CHARS_MAX} characters")
    return Call(
        id=RequestId(request.request_id) if request.request_id else new_request_id("rpc"),
        model=request.model or model.name,
        prompts=(_prompt(request),),
        sampling=_sampling(request.sampling),
        choices=request.n or 1,
        stop=tuple(request.stop),
        priority=request.priority,
        tenant_salt=request.cache_salt,
        session=request.session,
        tenant=tenant or request.tenant,
        kv_ttl_s=request.kv_ttl_s,
        deadline_s=deadline_s,
    )


def _prompt(request: pb.GenerateRequest) -> Prompt:
    match request.WhichOneof("prompt"):
        case "text":
            return TextPrompt(request.text)
        case "tokens":
            return TokenPrompt(tuple(request.tokens.ids))
        case "chat":
            if not request.chat.messages:
                raise InvalidRequest("messages", "must not be empty")
            messages = tuple(_message(message) for message in request.chat.messages)
            return ChatPrompt(messages, _options(request.chat.template_options))
        case _:
            raise InvalidRequest("prompt", "is required")


def _message(message: pb.ChatMessage) -> ChatMessage:
    if message.role not in ROLES:
        raise InvalidRequest("messages", f"role must be one of {', '.join(ROLES)}")
    return ChatMessage(message.role, message.content, message.name or None)


def _options(sent: Struct) -> dict[str, TemplateOption]:
    options: dict[str, TemplateOption] = {}
    for name, value in sent.items():
        if value is not None and not isinstance(value, str | float | bool):
            raise InvalidRequest("template_options", f"{name} must be a plain value")
        options[name] = value
    return options


def _sampling(sent: pb.Sampling) -> Sampling:
    if sent.HasField("max_tokens") and sent.max_tokens == 0:
        raise InvalidRequest("max_tokens", "must be at least 1, is 0")
    return Sampling(
        max_tokens=sent.max_tokens,
        temperature=sent.temperature if sent.HasField("temperature") else 1.0,
        top_k=sent.top_k,
        top_p=sent.top_p if sent.HasField("top_p") else 1.0,
        min_p=sent.min_p,
        repetition_penalty=sent.repetition_penalty if sent.HasField("repetition_penalty") else 1.0,
        presence_penalty=sent.presence_penalty,
        frequency_penalty=sent.frequency_penalty,
        logit_bias=dict(sent.logit_bias),
        seed=sent.seed if sent.HasField("seed") else random_seed(),
        logprobs=sent.logprobs if sent.HasField("logprobs") else None,
        stop_token_ids=tuple(sent.stop_token_ids),
        min_tokens=sent.min_tokens,
        ignore_eos=sent.ignore_eos,
    )


def chunk_of(call: RequestId, deltas: Sequence[Delta]) -> pb.GenerateChunk:
    """One message of a stream."""
    return pb.GenerateChunk(request_id=call, deltas=[delta_of(delta) for delta in deltas])


def delta_of(delta: Delta) -> pb.Delta:
    """What is new in one choice, or all of it."""
    return pb.Delta(
        choice=delta.choice,
        text=delta.text,
        tokens=[_token(token) for token in delta.tokens],
        finish_reason=_FINISH.get(delta.finish, pb.FINISH_REASON_UNSPECIFIED)
        if delta.finish
        else pb.FINISH_REASON_UNSPECIFIED,
    )


def _token(token: OutputToken) -> pb.Token:
    if token.logprobs is None:
        return pb.Token(id=token.id, text_offset=token.offset)
    top = [pb.TopLogprob(token_id=id_, logprob=value) for id_, value in token.logprobs.top]
    return pb.Token(id=token.id, text_offset=token.offset, logprob=token.logprobs.logprob, top=top)


def final_of(completion: Completion) -> pb.Final:
    """What a completed call cost and where it ran."""
    routes = [_route(choice, record) for choice, record in completion.records.items()]
    return pb.Final(usage=_usage(completion.usage), routes=routes)


def _usage(usage: TextUsage) -> pb.Usage:
    return pb.Usage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
    )


def _route(choice: int, record: RequestRecord) -> pb.Route:
    return pb.Route(
        choice=choice,
        prefill_worker=record.prefill_worker or "",
        decode_worker=record.decode_worker or "",
        pulled_bytes=record.pulled_bytes,
        ttft_ms=record.ttft_ms,
        itl_ms=record.itl_ms,
        replays=record.replays,
    )


def model_of(model: ModelCard) -> pb.Model:
    """A model as listed."""
    return pb.Model(
        name=model.name,
        created_unix_s=model.created,
        context_tokens_max=model.context_tokens_max,
    )
