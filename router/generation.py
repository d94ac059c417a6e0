"""What the caller holds of a running request: an iterator of pieces, and its record."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from tercet.errors import TercetError
from tercet.request import FinishReason, TokenLogprobs
from tercet.router.record import RequestRecord


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that are new since the last piece, at least one but for the last; that one says why it is the last."""

    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish: FinishReason | None = None


class Generation:
    """An asynchronous iterator of pieces with one reader.

    Raises what ended the request when it could not be completed: `RequestFailed`, `NoWorkers`, `Overloaded` or
    `InvalidRequest`. Tokens that a slow reader has not taken wait in one piece, so they never number more than the
    request's `max_tokens`.
    """

    def __init__(self, record: Callable[[], RequestRecord]) -> None:
        self._record = record
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tokens: list[int] = []
        self._logprobs: list[TokenLogprobs] | None = None
        self._finish: FinishReason | None = None
        self._error: TercetError | None = None
        self._over = False
        self._reader: asyncio.Future[None] | None = None
        self.is_satisfied = False
        """The reader has found the end it looked for; leaving is then no cancellation."""

    @property
    def record(self) -> RequestRecord:
        """What is known of the request so far; final once the generation has ended."""
        return self._record()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Piece:
        while not self._tokens and not self._over:
            assert self._reader is None, "a generation has one reader"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        if self._tokens or self._finish is not None:
            return self._take()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def dispatched(self) -> None:
        """Waits until a worker was sent the request; raises why none was."""
        await self._begun

    def begun(self) -> None:
        """A worker was sent the request."""
        if not self._begun.done():
            self._begun.set_result(None)

    def satisfied(self) -> None:
        """The reader wants no more, because what it has is complete: it found a stop string."""
        self.is_satisfied = True

    def deliver(self, tokens: list[int], logprobs: list[TokenLogprobs] | None) -> None:
        """New tokens are here."""
        self._tokens += tokens
        if logprobs is not None:
            self._logprobs = [*(self._logprobs or []), *logprobs]
        self._wake()

    def finish(self, reason: FinishReason) -> None:
        """These were the last ones."""
        self._finish, self._over = reason, True
        self._wake()

    def fail(self, error: TercetError) -> None:
        """No more will come; the reader is told after it has taken what is here."""
        self._error, self._over = error, True
        if not self._begun.done():
            self._begun.set_exception(error)
        self._wake()

    def end(self) -> None:
        """Nobody wants more."""
        self._over = True
        self._wake()

    def _take(self) -> Piece:
        piece = Piece(self._tokens, self._logprobs, self._finish)
        self._tokens, self._logprobs, self._finish = [], None, None
        return piece

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
