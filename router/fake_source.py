"""A token source that plays from a script, in place of a front door and its workers: for tests and for measuring."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tercet.clock import Clock, MonotonicClock
from tercet.config import LimitsConfig
from tercet.errors import MoveRefused, TercetError
from tercet.ids import FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, TokenLogprobs
from tercet.role import Role
from tercet.router.history import History
from tercet.router.meter import Meter
from tercet.router.metrics import Metrics
from tercet.router.record import RequestRecord
from tercet.router.status import FrontDoorStatus, WorkerSeen

Script = Callable[[RequestSpec], Sequence[int]]
"""The tokens a request will get, unless `max_tokens` ends it earlier."""


MODEL = "toy"
"""What the model is called whose limits count."""

WORKER = WorkerSeen(
    worker=WorkerId("decode-0"),
    incarnation=Incarnation("1"),
    role=Role.DECODE,
    connected=True,
    retired=False,
    suspect=False,
    report_age_s=0.0,
    outstanding=0,
    pending_tokens=0,
    load_tokens=0,
    waiting=0,
    running=0,
    holding=0,
    pulling=0,
    context_tokens=0,
    blocks_total=0,
    blocks_used=0,
    pulls=0,
    pull_bytes=0,
    pull_s=0.0,
    pull_failures=0,
    quarantined_blocks=0,
    retained_blocks=0,
    leases=0,
)
"""The worker that seems to be there while the source is ready."""


@dataclass(frozen=True, slots=True)
class FakePiece:
    """Output tokens that arrived together."""

    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish: FinishReason | None = None


@dataclass(slots=True)
class FakeStream:
    """One generation of the script."""

    source: "FakeSource"
    spec: RequestSpec
    sent_tokens: int = 0
    finish: FinishReason | None = None

    @property
    def record(self) -> RequestRecord:
        return RequestRecord(
            request=self.spec.id,
            prefill_worker=WorkerId("prefill-0"),
            decode_worker=WorkerId("decode-0"),
            prompt_tokens=len(self.spec.prompt),
            cached_tokens=self.source.cached_tokens,
            output_tokens=self.sent_tokens,
            pulled_bytes=4096,
            ttft_ms=12.5,
            itl_ms=1.5,
            finish=self.finish,
        )

    def satisfied(self) -> None:
        self.finish = self.finish or FinishReason.STOP

    async def __aiter__(self) -> AsyncIterator[FakePiece]:
        script = list(self.source.script(self.spec))[: self.spec.sampling.max_tokens]
        full = len(script) == self.spec.sampling.max_tokens
        per_piece = self.source.tokens_per_piece
        for start in range(0, len(script), per_piece):
            if start and self.source.gate is not None:
                await self.source.gate.wait()
            if self.source.failure is not None and start >= self.source.fails_after_tokens:
                raise self.source.failure
            await asyncio.sleep(self.source.pause_s)
            tokens = script[start : start + per_piece]
            if start + per_piece >= len(script):
                self.finish = FinishReason.LENGTH if full else FinishReason.STOP
            self.sent_tokens += len(tokens)
            yield FakePiece(tokens, self._logprobs(tokens), self.finish)

    def _logprobs(self, tokens: list[int]) -> list[TokenLogprobs] | None:
        count = self.spec.sampling.logprobs
        if count is None:
            return None
        return [
            TokenLogprobs(-0.5, [(token + i, -0.5 - i) for i in range(count)]) for token in tokens
        ]


@dataclass
class FakeSource:
    """Set its fields between calls; `active` and `specs` tell what happened."""

    script: Script
    tokens_per_piece: int = 1
    pause_s: float = 0.0
    cached_tokens: int = 0
    refusal: TercetError | None = None
    """Raised instead of giving a place."""
    failure: TercetError | None = None
    fails_after_tokens: int = 0
    gate: asyncio.Event | None = None
    """Every generation waits for it after its first piece."""
    ready: bool = True
    stays: str = ""
    """Why no request can be moved; empty where they can."""
    relocated: list[tuple[RequestId, WorkerId | None]] = field(default_factory=list)
    active: int = 0
    """Generations that hold a place."""
    specs: list[RequestSpec] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    tenants: list[str] = field(default_factory=list)
    deadlines_s: list[float | None] = field(default_factory=list)
    history: History = field(default_factory=History)
    metrics: Metrics = field(init=False)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    clock: Clock = field(default_factory=MonotonicClock)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.status)
        self.meter = Meter(self.limits, MODEL, self.clock, self.metrics.rate_limited)

    @asynccontextmanager
    async def generate(
        self,
        spec: RequestSpec,
        *,
        numbers: "array[int] | None" = None,
        deadline_s: float | None = None,
        session: str = "",
        tenant: str = "",
    ) -> AsyncIterator[FakeStream]:
        assert numbers is None or numbers.tolist() == spec.prompt
        self.specs.append(spec)
        self.sessions.append(session)
        self.tenants.append(tenant)
        self.deadlines_s.append(deadline_s)
        if self.refusal is not None:
            raise self.refusal
        stream = FakeStream(self, spec)
        self.active += 1
        try:
            yield stream
        finally:
            self.active -= 1
            self.history.add(stream.record)
            self.metrics.ended(stream.record)

    def relocate(self, request: RequestId, to: WorkerId | None = None) -> WorkerId:
        """Notes who shall go where, unless it is to say no."""
        if self.stays:
            raise MoveRefused(self.stays)
        self.relocated.append((request, to))
        return to or WORKER.worker

    def status(self) -> FrontDoorStatus:
        return FrontDoorStatus(
            front_door=FrontDoorId("fake"),
            membership_version=1,
            policy="script",
            in_flight=self.active,
            queued=0,
            turned_away=0,
            known_blocks=0,
            workers=(WORKER,) if self.ready else (),
        )
