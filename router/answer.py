"""The HTTP response to a completion call: whole, or as server-sent events. Serves the call only as long as its client listens.

The status goes out with the first text, so that every error before it has a status of its own.
"""

import asyncio
import logging

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tercet.errors import TercetError
from tercet.router.call import Call
from tercet.router.completion import Completion
from tercet.router.explanation import ROUTE, route_line
from tercet.router.openai_replies import ReplyWriter
from tercet.router.problems import Problem, problem_of
from tercet.router.service import Service

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def event(data: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + b"\n\n"


def comment(name: str, text: str) -> bytes:
    """Between two events, for whoever looks; clients are bound to ignore it."""
    return f": {name} {text}\n\n".encode()


class Answer(Response):
    """Runs a call when it is sent. A client that leaves ends the call at once."""

    def __init__(
        self,
        service: Service,
        call: Call,
        writer: ReplyWriter,
        *,
        stream: bool,
        headers: dict[str, str],
        explain: bool = False,
    ) -> None:
        super().__init__(headers=headers)
        self._service = service
        self._call = call
        self._writer = writer
        self._stream = stream
        self._names = headers
        self._explain = explain
        self._completion: Completion | None = None
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.create_task(self._serve(send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            gone.cancel()
            # Gathering waits until every generation has been left, also when we are cancelled ourselves.
            results = await asyncio.gather(work, gone, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _serve(self, send: Send) -> None:
        try:
            async with self._service.generate(self._call) as completion:
                self._completion = completion
                if self._stream:
                    await self._send_stream(completion, send)
                else:
                    await self._send_whole(completion, send)
        except TercetError as error:
            await self._send_problem(problem_of(error), send)
        except Exception as error:
            logger.exception("call %s failed by a bug", self._call.id)
            await self._send_problem(problem_of(error), send)

    async def _send_whole(self, completion: Completion, send: Send) -> None:
        answers = await completion.whole()
        body = self._writer.whole(answers, completion.usage)
        await self._begin(200, "application/json", {}, send)
        await self._send_body(body, send, more=False)

    async def _send_stream(self, completion: Completion, send: Send) -> None:
        async for deltas in completion:
            if not self._begun:
                # Proxies that buffer would turn the stream back into a whole answer.
                unbuffered = {"cache-control": "no-cache", "x-accel-buffering": "no"}
                await self._begin(200, "text/event-stream; charset=utf-8", unbuffered, send)
            chunks = b"".join(event(self._writer.chunk(delta)) for delta in deltas)
            await self._send_body(chunks, send, more=True)
        last = self._writer.last_chunk(completion.usage)
        end = (event(last) if last else b"") + self._route_comment() + DONE
        await self._send_body(end, send, more=False)

    async def _send_problem(self, problem: Problem, send: Send) -> None:
        """A status of its own, or, in the middle of a stream, an event that ends it without `[DONE]`."""
        if self._begun:
            end = self._route_comment() + event(problem.body)
            await self._send_body(end, send, more=False)
            return
        await self._begin(problem.verdict.status, "application/json", problem.headers, send)
        await self._send_body(problem.body, send, more=False)

    async def _begin(self, status: int, kind: str, extra: dict[str, str], send: Send) -> None:
        self._begun = True
        route = self._route()
        asked = {ROUTE: route} if route else {}
        names = {"content-type": kind, **self._names, **asked, **extra}
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in names.items()
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    def _route(self) -> str:
        """Where the call's choices went, as far as that is known now; empty unless it was asked for."""
        if not self._explain or self._completion is None:
            return ""
        return route_line(self._completion.records, len(self._call.requests))

    def _route_comment(self) -> bytes:
        """The last word on the route: with the headers of a stream, later choices were not known yet."""
        route = self._route()
        return comment(ROUTE, route) if route else b""

    async def _send_body(self, body: bytes, send: Send, *, more: bool) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    """Returns when the client is gone."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
