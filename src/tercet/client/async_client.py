"""The asynchronous client. Its synchronous twin is `sync_client.py`; they differ in nothing but waiting."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc

from tercet.client.channel import Access
from tercet.client.generation import Delta, Generation, Model, Summary
from tercet.client.options import ChatMessage, Options, build_request
from tercet.client.problems import error_of
from tercet.client.retry import Attempts, RetryPolicy
from tercet.errors import RequestFailed
from tercet.ids import RequestId
from tercet.pb import tercet_pb2 as pb
from tercet.pb import tercet_pb2_grpc

T = TypeVar("T")


class AsyncStream:
    """An answer as it comes. Iterate it; leave it (`async with`, or `close`) to end the generation early.

    A call that is turned away is tried again until its first delta; after that an error is an error.
    """

    def __init__(
        self, stub: tercet_pb2_grpc.TercetStub, request: pb.GenerateRequest, attempts: Attempts
    ) -> None:
        self._stub = stub
        self._request = request
        self._attempts = attempts
        self._call: grpc.aio.UnaryStreamCall | None = None
        self._deltas: deque[Delta] = deque()
        self._begun = False
        self.request_id: RequestId | None = None
        """Known with the first delta."""
        self.summary: Summary | None = None
        """Usage and routes, known when the stream has ended."""

    def __aiter__(self) -> AsyncIterator[Delta]:
        return self

    async def __anext__(self) -> Delta:
        while not self._deltas:
            if self.summary is not None:
                raise StopAsyncIteration
            self._take(await self._read())
        return self._deltas.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the call, on the server too. Nothing happens if it has ended."""
        if self._call is not None:
            self._call.cancel()

    def _take(self, chunk: pb.GenerateChunk) -> None:
        self._begun = True
        self.request_id = RequestId(chunk.request_id)
        self._deltas.extend(Delta.of(delta) for delta in chunk.deltas)
        if chunk.HasField("final"):
            self.summary = Summary.of(chunk.final)

    async def _read(self) -> pb.GenerateChunk:
        while True:
            if self._call is None:
                self._call = self._stub.GenerateStream(self._request, timeout=self._attempts.left_s)
            try:
                chunk: pb.GenerateChunk = await self._call.read()
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, self._request.model)
                delay_s = None if self._begun else self._attempts.delay_s(error)
                if delay_s is None:
                    raise error from failure
            else:
                if chunk is grpc.aio.EOF:
                    raise RequestFailed("the stream ended without its last message")
                return chunk
            self._call = None
            await asyncio.sleep(delay_s)


class AsyncClient:
    """Calls a front door. Create and use it inside one event loop; close it, or use it with `async with`."""

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float | None = 600.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - immutable
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._access = Access(target, credentials, timeout_s, retry)
        self._channel = self._access.aio_channel()
        self._stub = tercet_pb2_grpc.TercetStub(self._channel)  # type: ignore[no-untyped-call]

    async def generate(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        token_ids: Sequence[int] | None = None,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> Generation:
        """Wait for the whole answer to exactly one of `prompt`, `messages` and `token_ids`."""
        request = build_request(prompt, messages, token_ids, options)
        response = await self._call(self._stub.Generate, request, request.model, timeout_s)
        return Generation.of(response)

    def stream(
        self,
        prompt: str | None = None,
        *,
        messages: Sequence[ChatMessage] | None = None,
        token_ids: Sequence[int] | None = None,
        timeout_s: float | None = None,
        **options: Unpack[Options],
    ) -> AsyncStream:
        """The answer as it comes; the call begins with the first step of the iteration."""
        request = build_request(prompt, messages, token_ids, options)
        return AsyncStream(self._stub, request, self._access.attempts(timeout_s))

    async def cancel(self, request_id: str) -> bool:
        """End a call of the same front door by its id; False if there is none."""
        request = pb.CancelRequest(request_id=request_id)
        response = await self._call(self._stub.Cancel, request, "", None)
        return bool(response.found)

    async def explain(self, request_id: str) -> str:
        """Why a call of the same front door went where it went, as JSON; see `ExplainResponse` in `tercet.proto`."""
        request = pb.ExplainRequest(request_id=request_id)
        response = await self._call(self._stub.Explain, request, "", None)
        return str(response.explanation)

    async def move(self, request_id: str, to: str = "") -> str:
        """Have a running call of the same front door taken over by another worker, `to` or one that suits it; returns JSON, see
        `MoveResponse` in `tercet.proto`."""
        request = pb.MoveRequest(request_id=request_id, to=to)
        response = await self._call(self._stub.Move, request, "", None)
        return str(response.relocation)

    async def models(self) -> tuple[Model, ...]:
        """The models served."""
        response = await self._call(self._stub.ListModels, pb.ListModelsRequest(), "", None)
        return tuple(Model.of(model) for model in response.models)

    async def close(self) -> None:
        """End what still runs and close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(
        self,
        method: Callable[..., Awaitable[T]],
        request: object,
        model: str,
        timeout_s: float | None,
    ) -> T:
        attempts = self._access.attempts(timeout_s)
        while True:
            try:
                return await method(request, timeout=attempts.left_s)
            except grpc.aio.AioRpcError as failure:
                error = error_of(failure, model)
                delay_s = attempts.delay_s(error)
                if delay_s is None:
                    raise error from failure
            await asyncio.sleep(delay_s)
