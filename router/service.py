"""The text level: one model, its tokenizer and its chat template on top of a source of tokens.

Both doors, HTTP and gRPC, are translations of this. Knows neither of them.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tercet.clock import unix_time_s
from tercet.config import ClusterConfig
from tercet.errors import Cancelled, InvalidRequest, MoveRefused, Overloaded, UnknownModel
from tercet.ids import RequestId, WorkerId
from tercet.role import Role
from tercet.router.call import Call
from tercet.router.call_book import CallBook
from tercet.router.chat import ChatTemplate
from tercet.router.checkpoint import Checkpoint
from tercet.router.completion import Completion
from tercet.router.explanation import Explanation
from tercet.router.history import RECORDS_MAX
from tercet.router.preparation import ModelCard, Preparation
from tercet.router.record import RequestRecord
from tercet.router.relocation import MoveOrder, Relocation
from tercet.router.source import TokenSource
from tercet.router.tokenizer import Tokenizer

RETRY_AFTER_S = 1.0
"""Told to clients that are turned away before their request is even looked at."""


@dataclass(slots=True)
class _Place:
    """One call's entry in the list of calls; without a completion it is still being prepared."""

    call: Call
    completion: Completion | None = None
    cancelled: bool = False

    def meant(self, name: str) -> list[tuple[int, RequestId]]:
        """Those of its requests that are meant by the call's id, by its client's name for it or by their own id, by choice."""
        call = self.call
        return [
            (index, request)
            for index, request in enumerate(call.requests)
            if name in (call.id, call.name, request)
        ]

    def found(self, name: str) -> list[RequestRecord | None]:
        """What is known of those that are meant; None stands for one that has no worker yet."""
        records = self.completion.records if self.completion is not None else {}
        return [records.get(index) for index, _ in self.meant(name)]


class Service:
    """Serves calls. At most `calls_max` of them are prepared or under way at a time; one more raises Overloaded."""

    def __init__(
        self,
        model: ModelCard,
        source: TokenSource,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        *,
        calls_max: int,
        body_bytes_max: int,
    ) -> None:
        self.model = model
        self.source = source
        self.tokenizer = tokenizer
        self.body_bytes_max = body_bytes_max
        self._preparation = Preparation(model, tokenizer, template)
        self._calls_max = calls_max
        self._places: dict[RequestId, _Place] = {}
        self._book = CallBook()

    @classmethod
    def load(cls, config: ClusterConfig, source: TokenSource) -> Self:
        """Read what the text level needs from the checkpoint. Raises ModelUnsupported."""
        checkpoint = Checkpoint(Path(config.model.path))
        tokenizer = Tokenizer.load(checkpoint)
        template = checkpoint.chat_template()
        model = ModelCard(
            name=config.model.name or Path(config.model.path).resolve().name,
            created=unix_time_s(),
            context_tokens_max=context_tokens_max(config, checkpoint),
            vocabulary_size=checkpoint.vocabulary_size or tokenizer.size,
        )
        return cls(
            model,
            source,
            tokenizer,
            ChatTemplate(template, checkpoint.special_tokens()) if template else None,
            calls_max=config.front_door.in_flight_max + config.front_door.queue_max,
            body_bytes_max=config.front_door.body_bytes_max,
        )

    @property
    def active_calls(self) -> int:
        """Calls being prepared or under way."""
        return len(self._places)

    @property
    def ready(self) -> bool:
        """A request sent now would find a worker that can finish it."""
        return self.source.status().ready

    def check_model(self, name: str) -> None:
        """Raises UnknownModel unless `name` is the model served here."""
        if name != self.model.name:
            raise UnknownModel(name, [self.model.name])

    @asynccontextmanager
    async def generate(self, call: Call) -> AsyncIterator[Completion]:
        """Serve a call while the context lasts.

        Raises UnknownModel, InvalidRequest, Overloaded, RateLimited or Cancelled at once; what happens later comes out of the completion.
        """
        self.check_model(call.model)
        call.check()
        if call.id in self._places:
            raise InvalidRequest("request_id", "is in use by another call")
        if len(self._places) >= self._calls_max:
            raise Overloaded("every place in the queue is taken", RETRY_AFTER_S)
        place = self._places[call.id] = _Place(call)
        try:
            parts = await self._preparation.parts(call)
            if place.cancelled:
                raise Cancelled("the request was cancelled")
            prompt_tokens = sum(len(part.spec.prompt) for part in parts if part.counts_prompt)
            self.source.meter.admit(call.tenant, prompt_tokens)
            async with Completion(
                self.source, parts, call.deadline_s, call.session, call.tenant
            ) as completion:
                place.completion = completion
                yield completion
        finally:
            del self._places[call.id]
            self._book.add(call)

    def cancel(self, call: RequestId) -> bool:
        """End a call of this front door; False when there is no such call (any more)."""
        place = self._places.get(call)
        if place is None:
            return False
        place.cancelled = True
        if place.completion is not None:
            place.completion.cancel()
        return True

    def move(self, name: str, to: WorkerId | None) -> Relocation:
        """Have what runs of a call, or one of its requests, taken over by another worker, `to` or one that suits it."""
        if not name:
            raise InvalidRequest("request_id", "is required")
        running = [request for place in self._places.values() for _, request in place.meant(name)]
        orders = [self._move(request, to) for request in running]
        if not running:
            orders = [
                MoveOrder(request=record.request, reason="it has ended")
                for record in self.explain(name).requests
            ]
        return Relocation(front_door=self.source.status().front_door, moves=tuple(orders))

    def _move(self, request: RequestId, to: WorkerId | None) -> MoveOrder:
        try:
            return MoveOrder(request=request, to=self.source.relocate(request, to))
        except MoveRefused as exc:
            reason = str(exc) if exc.known else "it has no worker yet, or has ended"
            return MoveOrder(request=request, reason=reason)

    def explain(self, name: str) -> Explanation:
        """All that is known here of a call by its id or its client's name for it, or of one request by its own id."""
        if not name:
            raise InvalidRequest("request_id", "is required")
        history = self.source.history
        found = [record for place in self._places.values() for record in place.found(name)]
        waiting = found.count(None)
        if not found:
            found = [history.find(request) for request in self._book.find(name)]
        return Explanation(
            front_door=self.source.status().front_door,
            kept=len(history),
            kept_max=RECORDS_MAX,
            waiting=waiting,
            requests=tuple(record for record in found if record is not None),
        )


def context_tokens_max(config: ClusterConfig, checkpoint: Checkpoint) -> int:
    """The longest sequence that every worker can hold: the file's limit, the checkpoint's, and the KV pools'."""
    limits = [
        limit for limit in (config.model.context_tokens_max, checkpoint.context_tokens_max) if limit
    ]
    for role in Role:
        engine = config.engine_of(role)
        if config.pools.of(role).replicas and engine.kv_blocks:
            limits.append(engine.kv_blocks * engine.block_tokens)
    return min(limits)
