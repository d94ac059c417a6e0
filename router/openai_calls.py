"""OpenAI-compatible bodies become calls, or are refused with the field that is wrong.

Nothing is ignored that would have changed the answer: what cannot be served is refused.
"""

import re
from typing import TypeVar

import msgspec

from tercet.errors import InvalidRequest
from tercet.ids import RequestId
from tercet.request import Sampling
from tercet.router.call import (
    NAME_CHARS_MAX,
    Call,
    ChatPrompt,
    Prompt,
    TextPrompt,
    TokenPrompt,
    random_seed,
)
from tercet.router.chat import ChatMessage, Function, ToolCall
from tercet.router.openai_types import (
    Body,
    ChatBody,
    CompletionBody,
    ContentPart,
    SentMessage,
    SentToolCall,
)

COMPLETION_TOKENS = 16
"""OpenAI's default `max_tokens` of plain completions; chat goes on to the end of the context."""

NOTHING = frozenset({b"null", b"[]", b"{}", b"false", b'""'})
"""Values that ask for nothing."""

UNSUPPORTED_IN_CHAT = {
    "tools": NOTHING,
    "tool_choice": NOTHING | {b'"none"', b'"auto"'},
    "parallel_tool_calls": NOTHING | {b"true"},
    "functions": NOTHING,
    "function_call": NOTHING | {b'"none"', b'"auto"'},
    "audio": NOTHING,
    "prediction": NOTHING,
    "reasoning_effort": NOTHING | {b'"none"'},
    "verbosity": NOTHING,
    "web_search_options": frozenset({b"null"}),
}
"""Fields of ChatBody that are refused, and which values of theirs do not matter."""

AnyBody = TypeVar("AnyBody", bound=msgspec.Struct)

_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `(?P<name>[^`]*)`")
_MISSING_FIELD = re.compile(r"^Object missing required field `(?P<name>[^`]*)`")
_AT = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`$")


def decode(data: bytes, kind: type[AnyBody]) -> AnyBody:
    """The body, or InvalidRequest with the path of what is wrong in it."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc)) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidRequest("", f"the body is not valid JSON: {exc}") from exc


def _refusal(text: str) -> InvalidRequest:
    at = _AT.search(text)
    path = at["path"] if at else ""
    reason = text[: at.start()] if at else text
    for pattern, verdict in (
        (_UNKNOWN_FIELD, "is not a parameter of this API"),
        (_MISSING_FIELD, "is required"),
    ):
        if found := pattern.match(reason):
            return InvalidRequest(f"{path}.{found['name']}".lstrip("."), verdict)
    return InvalidRequest(path, reason[0].lower() + reason[1:])


def chat_call(
    body: ChatBody, call_id: RequestId, deadline_s: float | None, session: str = ""
) -> Call:
    """The call that a chat body asks for. `session` came beside it, and says more than the body's `prompt_cache_key`."""
    for name, neutral in UNSUPPORTED_IN_CHAT.items():
        _refuse_unless(name, bytes(getattr(body, name)), neutral)
    if body.response_format is not None and body.response_format.type != "text":
        raise InvalidRequest("response_format", "only `text` is supported")
    if body.modalities not in (None, ["text"]):
        raise InvalidRequest("modalities", "only `text` is supported")
    if body.store:
        raise InvalidRequest("store", "is not supported: nothing is stored here")
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs", "needs logprobs to be true")
    if not body.messages:
        raise InvalidRequest("messages", "must not be empty")
    if len(body.prompt_cache_key or "") > NAME_CHARS_MAX:
        raise InvalidRequest("prompt_cache_key", f"must have at most {NAME_CHARS_MAX} characters")
    messages = tuple(_message(message, index) for index, message in enumerate(body.messages))
    return _call(
        body,
        call_id,
        (ChatPrompt(messages, body.chat_template_kwargs or {}),),
        max_tokens=_max_tokens(body.max_completion_tokens, body.max_tokens),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        session=session or body.prompt_cache_key or "",
        deadline_s=deadline_s,
    )


def completion_call(
    body: CompletionBody, call_id: RequestId, deadline_s: float | None, session: str = ""
) -> Call:
    """The call that a plain completion body asks for."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise InvalidRequest("best_of", "is not supported; n choices are all returned")
    if body.suffix:
        raise InvalidRequest("suffix", "is not supported")
    if body.echo and body.logprobs is not None:
        raise InvalidRequest("logprobs", "is not supported together with echo")
    return _call(
        body,
        call_id,
        _prompts(body.prompt),
        max_tokens=_max_tokens(body.max_tokens) or COMPLETION_TOKENS,
        logprobs=body.logprobs,
        echo=bool(body.echo),
        session=session,
        deadline_s=deadline_s,
    )


def _call(
    body: Body,
    call_id: RequestId,
    prompts: tuple[Prompt, ...],
    *,
    max_tokens: int,
    logprobs: int | None,
    deadline_s: float | None,
    echo: bool = False,
    session: str = "",
) -> Call:
    if body.stream_options is not None and not body.stream:
        raise InvalidRequest("stream_options", "needs stream to be true")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Call(
        id=call_id,
        model=body.model,
        prompts=prompts,
        sampling=_sampling(body, max_tokens, logprobs),
        choices=1 if body.n is None else body.n,
        stop=stop,
        echo=echo,
        priority=body.priority or 0,
        tenant_salt=body.cache_salt or "",
        kv_ttl_s=body.kv_ttl_s or 0.0,
        session=session,
        deadline_s=deadline_s,
    )


def _sampling(body: Body, max_tokens: int, logprobs: int | None) -> Sampling:
    return Sampling(
        max_tokens=max_tokens,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        logit_bias=_logit_bias(body.logit_bias or {}),
        seed=random_seed() if body.seed is None else body.seed,
        logprobs=logprobs,
        stop_token_ids=tuple(body.stop_token_ids or ()),
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
    )


def _logit_bias(sent: dict[str, float]) -> dict[int, float]:
    if not all(name.isascii() and name.isdigit() for name in sent):
        raise InvalidRequest("logit_bias", "keys must be token ids")
    return {int(name): bias for name, bias in sent.items()}


def _max_tokens(*sent: int | None) -> int:
    """The first that was sent; 0 when none was, which stands for the API's default."""
    for value in sent:
        if value is not None:
            if value < 1:
                raise InvalidRequest("max_tokens", f"must be at least 1, is {value}")
            return value
    return 0


def _prompts(sent: str | list[str | int | list[int]]) -> tuple[Prompt, ...]:
    if isinstance(sent, str):
        return (TextPrompt(sent),)
    numbers = [item for item in sent if isinstance(item, int)]
    if numbers:
        if len(numbers) != len(sent):
            raise InvalidRequest("prompt", "mixes token ids with texts or lists")
        return (TokenPrompt(tuple(numbers)),)
    return tuple(
        TextPrompt(item) if isinstance(item, str) else TokenPrompt(tuple(item))
        for item in sent
        if not isinstance(item, int)
    )


def _message(sent: SentMessage, index: int) -> ChatMessage:
    where = f"messages[{index}]"
    for name in ("annotations", "audio", "function_call"):
        _refuse_unless(f"{where}.{name}", bytes(getattr(sent, name)), NOTHING)
    if sent.content is None and not (sent.role == "assistant" and sent.tool_calls):
        raise InvalidRequest(f"{where}.content", "is required")
    return ChatMessage(
        role=sent.role,
        content=_content(sent.content, where),
        name=sent.name,
        reasoning_content=sent.reasoning_content,
        tool_calls=tuple(_tool_call(call, where) for call in sent.tool_calls or ()),
        tool_call_id=sent.tool_call_id,
    )


def _content(sent: str | list[ContentPart] | None, where: str) -> str | None:
    """One text: templates of text models take no parts, so parts are put on lines of their own."""
    if not isinstance(sent, list):
        return sent
    for number, part in enumerate(sent):
        if part.type != "text" or part.text is None:
            raise InvalidRequest(f"{where}.content[{number}]", "only text parts are supported")
    return "\n".join(part.text or "" for part in sent)


def _tool_call(sent: SentToolCall, where: str) -> ToolCall:
    try:
        arguments: object = msgspec.json.decode(sent.function.arguments or "{}")
    except msgspec.DecodeError as exc:
        raise InvalidRequest(f"{where}.tool_calls", f"arguments are not valid JSON: {exc}") from exc
    return ToolCall(sent.id, Function(sent.function.name, arguments))


def _refuse_unless(name: str, sent: bytes, neutral: frozenset[bytes]) -> None:
    if sent not in neutral:
        raise InvalidRequest(name, "is not supported")
