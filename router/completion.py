"""All choices of one call, generated side by side and merged into one stream of deltas.

Owns one task a choice. Knows neither tokenising nor any API; errors come through as the token level raises them.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tercet.errors import Cancelled
from tercet.request import RequestSpec
from tercet.router.choice import Choice, Delta
from tercet.router.record import RequestRecord
from tercet.router.source import TokenSource, TokenStream


@dataclass(frozen=True, slots=True)
class TextUsage:
    """Tokens of a call: each prompt counts once, however many choices it has."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    """Prompt tokens that were found in a cache."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Part:
    """One choice and the generation it is made of."""

    spec: RequestSpec
    numbers: "array[int]"
    """Its prompt, as `tercet.router.prefix_names` makes it."""
    choice: Choice
    counts_prompt: bool
    """True for the first choice of each prompt."""
    echo: str = ""
    """Text to begin with."""


class Completion:
    """A call being served. Leaving the context cancels whatever still runs; nothing of it remains.

    Iterating yields lists of deltas: all that was ready at that moment, at most one a choice. What waits here for a slow
    client is bounded by the tokens its choices may have.
    """

    def __init__(
        self,
        source: TokenSource,
        parts: Sequence[Part],
        deadline_s: float | None,
        session: str,
        tenant: str = "",
    ) -> None:
        self._source = source
        self._parts = parts
        self._deadline_s = deadline_s
        self._session, self._tenant = session, tenant
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: dict[int, TokenStream] = {}
        self._ready: dict[int, Delta] = {}
        self._running = len(parts)
        self._error: Exception | None = None
        self._woken = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(part)) for part in self._parts]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self) -> None:
        """End the call on its client's wish: whoever iterates gets Cancelled."""
        self._fail(Cancelled("the request was cancelled"))

    async def __aiter__(self) -> AsyncIterator[list[Delta]]:
        while True:
            await self._woken.wait()
            self._woken.clear()
            if self._ready:
                ready, self._ready = self._ready, {}
                yield list(ready.values())
            if self._error is not None:
                raise self._error
            if not self._running and not self._ready:
                return

    async def whole(self) -> list[Delta]:
        """Wait for the end; one delta a choice, by choice, with everything in it."""
        answers: dict[int, Delta] = {}
        async for deltas in self:
            for delta in deltas:
                if delta.choice in answers:
                    answers[delta.choice].add(delta)
                else:
                    answers[delta.choice] = delta
        return [answers[index] for index in sorted(answers)]

    @property
    def records(self) -> dict[int, RequestRecord]:
        """What is known of each choice's generation, in order; those that got no place yet are left out."""
        return {index: self._streams[index].record for index in sorted(self._streams)}

    @property
    def usage(self) -> TextUsage:
        """Token counts as of now."""
        firsts = [part for part in self._parts if part.counts_prompt]
        cached = [
            self._streams[part.choice.index].record.cached_tokens
            for part in firsts
            if part.choice.index in self._streams
        ]
        return TextUsage(
            prompt_tokens=sum(len(part.spec.prompt) for part in firsts),
            completion_tokens=sum(part.choice.generated_tokens for part in self._parts),
            cached_tokens=sum(cached),
        )

    async def _run(self, part: Part) -> None:
        try:
            await self._generate(part)
        except Exception as error:  # ours or a bug: either way whoever iterates must see it
            self._fail(error)
        finally:
            self._running -= 1
            self._woken.set()

    async def _generate(self, part: Part) -> None:
        choice = part.choice
        async with self._source.generate(
            part.spec,
            numbers=part.numbers,
            deadline_s=self._deadline_s,
            session=self._session,
            tenant=self._tenant,
        ) as stream:
            self._streams[choice.index] = stream
            if part.echo:
                self._post(Delta(choice.index, part.echo))
            async for piece in stream:
                before = choice.generated_tokens
                delta = choice.feed(piece)
                self._source.meter.generated(self._tenant, choice.generated_tokens - before)
                if delta is not None:
                    self._post(delta)
                if choice.finish is not None:
                    stream.satisfied()
                    return
        raise AssertionError(f"the generation of {part.spec.id} ended without a reason")

    def _post(self, delta: Delta) -> None:
        earlier = self._ready.get(delta.choice)
        if earlier is None:
            self._ready[delta.choice] = delta
        else:
            earlier.add(delta)
        self._woken.set()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._woken.set()
