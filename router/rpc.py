"""The gRPC door: the public API of `proto/tercet.proto`, with the standard health and reflection services beside it.

A thin shell, as `http.py` is. A client that cancels, leaves or lets its deadline pass ends its handler, and with it the call.
"""

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tercet.errors import TercetError, UnknownModel
from tercet.ids import RequestId, WorkerId
from tercet.pb import tercet_pb2 as pb
from tercet.pb import tercet_pb2_grpc
from tercet.router.call import TENANT, Call
from tercet.router.completion import Completion
from tercet.router.explanation import EXPLAIN, ROUTE, asks_for_route, route_line
from tercet.router.problems import Problem, problem_of
from tercet.router.rpc_health import Health
from tercet.router.rpc_messages import call_of, chunk_of, delta_of, final_of, model_of
from tercet.router.service import Service

logger = logging.getLogger(__name__)

REASON_CHARS_MAX = 1024
"""Of an error's reason in the trailing metadata, which is a header and has to stay small."""

Metadata = tuple[tuple[str, str], ...]


class RpcServer(NamedTuple):
    """A running server; `await server.stop(grace_s)` ends it."""

    server: grpc.aio.Server
    port: int


async def start_grpc(service: Service, host: str, port: int) -> RpcServer:
    """Listen on `host:port`; 0 takes any free port. Raises RuntimeError when the port cannot be had."""
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # two front doors must not share a port without knowing
            ("grpc.max_receive_message_length", service.body_bytes_max),
        ]
    )
    name = pb.DESCRIPTOR.services_by_name["Tercet"].full_name
    tercet_pb2_grpc.add_TercetServicer_to_server(_Tercet(service), server)  # type: ignore[no-untyped-call]
    health = Health(lambda: service.ready, (name,))
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((name, health_name, reflection.SERVICE_NAME), server)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return RpcServer(server, bound)


class _Tercet(tercet_pb2_grpc.TercetServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    async def Generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> pb.GenerateResponse:
        try:
            return await self._generate(request, context)
        except Exception as error:
            await self._abort(context, error)

    async def GenerateStream(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateChunk]:
        try:
            call = self._call(request, context)
            explain = _explain(context)
            async with self._service.generate(call) as completion:
                with _routed(context, completion, call, explain):
                    async for deltas in completion:
                        yield chunk_of(call.id, deltas)
                    yield pb.GenerateChunk(request_id=call.id, final=final_of(completion))
        except Exception as error:
            await self._abort(context, error)

    async def Cancel(
        self, request: pb.CancelRequest, context: grpc.aio.ServicerContext
    ) -> pb.CancelResponse:
        return pb.CancelResponse(found=self._service.cancel(RequestId(request.request_id)))

    async def Explain(
        self, request: pb.ExplainRequest, context: grpc.aio.ServicerContext
    ) -> pb.ExplainResponse:
        try:
            explanation = self._service.explain(request.request_id)
        except Exception as error:
            await self._abort(context, error)
        return pb.ExplainResponse(explanation=msgspec.json.encode(explanation).decode())

    async def Move(
        self, request: pb.MoveRequest, context: grpc.aio.ServicerContext
    ) -> pb.MoveResponse:
        to = WorkerId(request.to) if request.to else None
        try:
            relocation = self._service.move(request.request_id, to)
        except Exception as error:
            await self._abort(context, error)
        return pb.MoveResponse(relocation=msgspec.json.encode(relocation).decode())

    async def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=[model_of(self._service.model)])

    async def _generate(
        self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> pb.GenerateResponse:
        call = self._call(request, context)
        explain = _explain(context)
        async with self._service.generate(call) as completion:
            with _routed(context, completion, call, explain):
                answers = await completion.whole()
            return pb.GenerateResponse(
                request_id=call.id,
                model=call.model,
                choices=[delta_of(answer) for answer in answers],
                final=final_of(completion),
            )

    def _call(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> Call:
        tenant = _sent(context, TENANT) or ""
        return call_of(request, self._service.model, context.time_remaining(), tenant)

    async def _abort(self, context: grpc.aio.ServicerContext, error: Exception) -> NoReturn:
        """The one place where an exception becomes a status."""
        if not isinstance(error, TercetError):
            logger.error("a gRPC call failed by a bug", exc_info=error)
        problem = problem_of(error)
        metadata = _metadata(problem)
        if isinstance(error, UnknownModel):
            metadata = (*metadata, ("tercet-models", _header(self._service.model.name)))
        # What an abort is given replaces what was set before.
        metadata = (*context.trailing_metadata(), *metadata)
        await context.abort(
            grpc.StatusCode[problem.verdict.rpc_code], problem.message, trailing_metadata=metadata
        )
        raise AssertionError("abort raises")


def _explain(context: grpc.aio.ServicerContext) -> bool:
    return asks_for_route(_sent(context, EXPLAIN))


def _sent(context: grpc.aio.ServicerContext, name: str) -> str | None:
    """The client's metadata of that name; None where there are none."""
    values = (value for key, value in context.invocation_metadata() if key == name)
    return next(values, None)


@contextmanager
def _routed(
    context: grpc.aio.ServicerContext, completion: Completion, call: Call, explain: bool
) -> Iterator[None]:
    """Whoever asked is told at the end, be it a good one or not, where the call's choices went."""
    try:
        yield
    finally:
        if explain:
            line = route_line(completion.records, len(call.requests))
            context.set_trailing_metadata(((ROUTE, line),))


def _metadata(problem: Problem) -> Metadata:
    entries = [("tercet-reason", _header(problem.reason or problem.message))]
    if problem.field:
        entries.append(("tercet-field", _header(problem.field)))
    if problem.verdict.code:
        entries.append(("tercet-code", problem.verdict.code))
    if "retry-after-ms" in problem.headers:
        entries.append(("retry-after-ms", problem.headers["retry-after-ms"]))
    return tuple(entries)


def _header(text: str) -> str:
    """Metadata is printable ASCII; the status message beside it has the text as it is."""
    escaped = text.encode("ascii", "backslashreplace").decode()
    return "".join(char if char.isprintable() else " " for char in escaped)[:REASON_CHARS_MAX]
