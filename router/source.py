"""What the text level needs of the token level below it: requests of tokens in, pieces of tokens out.

The front door is the real one; `fake_source.py` plays it from a script. Nothing here knows how tokens come about.
"""

from array import array
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from tercet.ids import RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, TokenLogprobs
from tercet.router.history import History
from tercet.router.meter import Meter
from tercet.router.record import RequestRecord
from tercet.router.status import FrontDoorStatus


class Piece(Protocol):
    """Output tokens that arrived together; the last piece carries `finish`."""

    @property
    def tokens(self) -> list[int]: ...
    @property
    def logprobs(self) -> list[TokenLogprobs] | None: ...
    @property
    def finish(self) -> FinishReason | None: ...


class TokenStream(Protocol):
    """One generation that has its place. Iterating raises RequestFailed or NoWorkers when it cannot be completed."""

    def __aiter__(self) -> AsyncIterator[Piece]: ...
    @property
    def record(self) -> RequestRecord: ...
    def satisfied(self) -> None:
        """What was read is complete; leaving before the last piece is then no cancellation."""
        ...


class Exposition(Protocol):
    """Figures for Prometheus."""

    def render(self) -> bytes:
        """All of them, in Prometheus' text format."""
        ...


class TokenSource(Protocol):
    """Generates tokens. Entering a generation waits for a place and may raise Overloaded or NoWorkers; leaving it
    cancels whatever still runs of it. `numbers` is the prompt once more, see `tercet.router.prefix_names`."""

    def generate(
        self,
        spec: RequestSpec,
        *,
        numbers: "array[int] | None" = None,
        deadline_s: float | None = None,
        session: str = "",
        tenant: str = "",
    ) -> AbstractAsyncContextManager[TokenStream]: ...

    def relocate(self, request: RequestId, to: WorkerId | None = None) -> WorkerId:
        """Have a request that runs taken over by another worker, `to` or one that suits it; returns which.

        Raises MoveRefused, with nothing changed.
        """
        ...

    @property
    def history(self) -> History:
        """The last finished requests."""
        ...

    @property
    def meter(self) -> Meter:
        """What calls are counted by. Generations are not: whoever begins some for a call admits it here first."""
        ...

    @property
    def metrics(self) -> Exposition: ...

    def status(self) -> FrontDoorStatus:
        """Everything an operator may want to see, as of now."""
        ...
