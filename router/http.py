"""The OpenAI-compatible HTTP API, and what operators ask a front door over HTTP.

A thin shell: bodies become calls in `openai_calls.py`, answers are sent by `answer.py`. Runs under any ASGI server.
"""

from collections.abc import Callable
from dataclasses import replace

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from tercet.clock import unix_time_s
from tercet.errors import InvalidRequest, TercetError
from tercet.ids import WorkerId, new_request_id
from tercet.router.answer import Answer
from tercet.router.call import NAME_CHARS_MAX, TENANT, BodyTooLarge, Call
from tercet.router.explanation import EXPLAIN, asks_for_route, no_single, not_remembered
from tercet.router.history import RECORDS_MAX
from tercet.router.openai_calls import chat_call, completion_call, decode
from tercet.router.openai_replies import ChatFormat, Head, PlainFormat, ReplyFormat, ReplyWriter
from tercet.router.openai_types import Body, ChatBody, CompletionBody
from tercet.router.problems import Problem, problem_of, problem_of_status
from tercet.router.relocation import MoveBody
from tercet.router.service import Service

GetService = Callable[[], Service]


class ModelReply(msgspec.Struct, frozen=True):
    """One entry of `/v1/models`."""

    id: str
    created: int
    max_model_len: int
    """Longest prompt plus output, in tokens."""
    object: str = "model"
    owned_by: str = "tercet"


class ModelList(msgspec.Struct, frozen=True):
    """`/v1/models`."""

    data: list[ModelReply]
    object: str = "list"


class Health(msgspec.Struct, frozen=True):
    """`/health` and `/ready`."""

    status: str


def build_api(get_service: GetService) -> FastAPI:
    """The ASGI application. `get_service` is asked with every request, so the service may come later than the API."""
    api = FastAPI(title="Tercet", description="OpenAI-compatible API of one front door")
    _add_refusals(api)
    _add_openai_routes(api, get_service)
    _add_operator_routes(api, get_service)
    return api


def _add_openai_routes(api: FastAPI, get_service: GetService) -> None:
    @api.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        service = get_service()
        body = decode(await _read_body(request, service.body_bytes_max), ChatBody)
        call = chat_call(body, new_request_id("chatcmpl"), _deadline_s(request), _session(request))
        style = ChatFormat(service.tokenizer.token_bytes, logprobs=bool(body.logprobs))
        return _answer(service, request, body, call, style)

    @api.post("/v1/completions")
    async def completions(request: Request) -> Response:
        service = get_service()
        body = decode(await _read_body(request, service.body_bytes_max), CompletionBody)
        call = completion_call(
            body, new_request_id("cmpl"), _deadline_s(request), _session(request)
        )
        style = PlainFormat(service.tokenizer.token_bytes, logprobs=body.logprobs is not None)
        return _answer(service, request, body, call, style)

    @api.get("/v1/models")
    async def models() -> Response:
        return _json(ModelList([_model(get_service())]))

    @api.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        service = get_service()
        service.check_model(name)
        return _json(_model(service))


def _add_operator_routes(api: FastAPI, get_service: GetService) -> None:
    @api.get("/health")
    async def health() -> Response:
        return _json(Health("alive"))

    @api.get("/ready")
    async def ready() -> Response:
        is_ready = get_service().ready
        return _json(Health("ready" if is_ready else "no workers"), 200 if is_ready else 503)

    @api.get("/metrics")
    async def metrics() -> Response:
        text = get_service().source.metrics.render()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @api.get("/tercet/status")
    async def status() -> Response:
        return _json(get_service().source.status())

    @api.get("/tercet/requests")
    async def requests(limit: int = 100) -> Response:
        if not 1 <= limit <= RECORDS_MAX:
            raise InvalidRequest("limit", f"must be between 1 and {RECORDS_MAX}, is {limit}")
        records = get_service().source.history.recent(limit)
        return Response(msgspec.json.encode(records), media_type="application/json")

    @api.get("/tercet/requests/{request_id:path}")
    async def request(request_id: str) -> Response:
        explanation = get_service().explain(request_id)
        if not explanation.is_known:
            return _refuse(problem_of_status(404, not_remembered(request_id, explanation)))
        if len(explanation.requests) != 1:
            return _refuse(problem_of_status(404, no_single(request_id, explanation)))
        return _json(explanation.requests[0])

    @api.post("/tercet/requests/{request_id:path}/move")
    async def move(request_id: str, request: Request) -> Response:
        service = get_service()
        body = await _read_body(request, service.body_bytes_max)
        to = decode(body, MoveBody).to if body else ""
        relocation = service.move(request_id, WorkerId(to) if to else None)
        if not relocation.is_known:
            told = not_remembered(request_id, service.explain(request_id))
            return _refuse(problem_of_status(404, told))
        if not relocation.has_begun:
            told = "; ".join(f"{order.request}: {order.reason}" for order in relocation.moves)
            return _refuse(problem_of_status(409, told))
        return _json(relocation, 202)


def _add_refusals(api: FastAPI) -> None:
    """Every refusal has OpenAI's shape, whoever raised it."""

    @api.exception_handler(TercetError)
    async def ours(request: Request, error: TercetError) -> Response:
        return _refuse(problem_of(error))

    @api.exception_handler(RequestValidationError)
    async def query(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return _refuse(problem_of(InvalidRequest(str(first["loc"][-1]), str(first["msg"]))))

    @api.exception_handler(HTTPException)
    async def framework(request: Request, error: HTTPException) -> Response:
        return _refuse(problem_of_status(error.status_code, str(error.detail)))

    @api.exception_handler(ClientDisconnect)
    async def left(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it

    @api.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> Response:
        return _refuse(problem_of(error))  # the framework logs it


def _answer(
    service: Service, request: Request, body: Body, call: Call, style: ReplyFormat
) -> Answer:
    options = body.stream_options
    writer = ReplyWriter(
        Head(call.id, unix_time_s(), service.model.name),
        style,
        stream_usage=bool(options is not None and options.include_usage),
    )
    call = replace(call, name=_request_id(request), tenant=_tenant(request))
    headers = {"x-tercet-request-id": call.id, "x-request-id": call.name or call.id}
    explain = asks_for_route(request.headers.get(EXPLAIN))
    return Answer(service, call, writer, stream=bool(body.stream), headers=headers, explain=explain)


async def _read_body(request: Request, bytes_max: int) -> bytes:
    """The body. Raises BodyTooLarge as soon as that is known, without reading on."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > bytes_max:
        raise BodyTooLarge(bytes_max)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise BodyTooLarge(bytes_max)
    return bytes(body)


def _request_id(request: Request) -> str:
    """The client's own name for this call, which is sent back."""
    return _name(request, "x-request-id")


def _session(request: Request) -> str:
    """The client's name for the conversation."""
    return _name(request, "x-session-id")


def _tenant(request: Request) -> str:
    """Whose limits count."""
    return _name(request, TENANT)


def _name(request: Request, header: str) -> str:
    name = request.headers.get(header, "")
    if len(name) > NAME_CHARS_MAX:
        raise InvalidRequest(header, f"must have at most {NAME_CHARS_MAX} characters")
    return name


def _deadline_s(request: Request) -> float | None:
    text = request.headers.get("x-tercet-deadline-ms")
    if text is None:
        return None
    try:
        return float(text) / 1e3
    except ValueError as exc:
        raise InvalidRequest("x-tercet-deadline-ms", f"is not a number: {text!r}") from exc


def _model(service: Service) -> ModelReply:
    model = service.model
    return ModelReply(model.name, model.created, model.context_tokens_max)


def _json(value: msgspec.Struct, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _refuse(problem: Problem) -> Response:
    return Response(
        problem.body, problem.verdict.status, problem.headers, media_type="application/json"
    )
