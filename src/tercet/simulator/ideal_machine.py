"""The simplest worker that can be loaded: one prompt at a time, first come first served, and a prefix cache.

Prefill takes time in proportion to the tokens that are not cached; nothing else takes any, and a request is over with its
first token. What is cached is decided when a request arrives. Policies for prefill are compared on it, since nothing but
their choices makes a difference.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from tercet.ids import Epoch, FrontDoorId, RequestId
from tercet.request import FinishReason
from tercet.simulator.machine import Book, Order, Say
from tercet.simulator.timeline import Alarm, Timeline
from tercet.wire import Adopt, Cancel, Endpoint, LoadReport, Refused, Resume, Submit, Tokens, Usage


@dataclass(slots=True)
class Job:
    """One prompt."""

    owner: FrontDoorId
    request: RequestId
    epoch: Epoch
    tokens: int
    """To compute."""
    cached_tokens: int
    begun_s: float = 0.0


class IdealMachine:
    """`tokens_per_s` is its speed. It refuses what would begin later than `start_within_s` from now."""

    def __init__(
        self,
        timeline: Timeline,
        endpoint: Endpoint,
        say: Say,
        book: Book,
        *,
        tokens_per_s: float,
        cache_blocks: int,
        block_tokens: int,
        start_within_s: float,
    ) -> None:
        self.endpoint = endpoint
        self._timeline, self._say, self._book = timeline, say, book
        self._tokens_per_s, self._start_within_s = tokens_per_s, start_within_s
        self._cache_blocks, self._block_tokens = cache_blocks, block_tokens
        self._cache: OrderedDict[int, None] = OrderedDict()
        self._queue: deque[Job] = deque()
        self._queued_tokens = 0
        self._running: Job | None = None
        self._ends: Alarm | None = None
        self._spent_s = 0.0
        """On jobs that are over."""

    def take(self, owner: FrontDoorId, order: Order) -> None:
        match order:
            case Submit():
                self._submit(owner, order)
            case Cancel():
                self._cancel(order)
            case Adopt() | Resume():
                raise AssertionError("an ideal worker is alone with its requests")

    def kill(self) -> None:
        if self._ends is not None:
            self._ends.cancel()
        self._queue.clear()

    def report(self) -> LoadReport:
        return LoadReport(
            role=self.endpoint.role,
            waiting=len(self._queue),
            running=1 if self._running else 0,
            holding=0,
            pulling=0,
            pending_prefill_tokens=self.pending_tokens,
            context_tokens=0,
            blocks_total=self._cache_blocks,
            blocks_used=len(self._cache),
            prefill_coefficients=(0.0, 1.0 / self._tokens_per_s, 0.0),
        )

    def hit(self, names: Sequence[int]) -> int:
        cache = self._cache
        return next((depth for depth, name in enumerate(names) if name not in cache), len(names))

    def cached(self) -> frozenset[int]:
        return frozenset(self._cache)

    @property
    def busy_s(self) -> float:
        job = self._running
        return self._spent_s + (self._timeline.now_s() - job.begun_s if job else 0.0)

    @property
    def pending_tokens(self) -> int:
        """Accepted and not computed."""
        job = self._running
        if job is None:
            return 0
        done_tokens = (self._timeline.now_s() - job.begun_s) * self._tokens_per_s
        return self._queued_tokens + max(0, round(job.tokens - done_tokens))

    def _submit(self, owner: FrontDoorId, order: Submit) -> None:
        request, pending = order.spec.id, self.pending_tokens
        wait_s = pending / self._tokens_per_s
        if wait_s > self._start_within_s:
            reason = f"{wait_s:.2f} s of prefill are ahead"
            self._say(owner, Refused(request, order.epoch, reason, wait_s, pending))
            return
        names, tokens = self._book[request].names, len(order.spec.prompt)
        cached_tokens = self.hit(names) * self._block_tokens
        job = Job(owner, request, order.epoch, max(1, tokens - cached_tokens), cached_tokens)
        self._remember(names)
        self._queue.append(job)
        self._queued_tokens += job.tokens
        if self._running is None:
            self._begin()

    def _remember(self, names: Sequence[int]) -> None:
        cache = self._cache
        for name in reversed(names):
            cache[name] = None
            cache.move_to_end(name)
        while len(cache) > self._cache_blocks:
            cache.popitem(last=False)

    def _begin(self) -> None:
        if self._queue:
            job = self._running = self._queue.popleft()
            self._queued_tokens -= job.tokens
            job.begun_s = self._timeline.now_s()
            self._ends = self._timeline.call_later(job.tokens / self._tokens_per_s, self._end)

    def _end(self) -> None:
        job = self._stop()
        self._begin()
        usage = Usage(cached_tokens=job.cached_tokens, computed_tokens=job.tokens)
        last = Tokens(job.request, job.epoch, 0, [0], finish=FinishReason.LENGTH, usage=usage)
        self._say(job.owner, last)

    def _stop(self) -> Job:
        job, self._spent_s = self._running, self.busy_s
        assert job is not None
        self._running = None
        return job

    def _cancel(self, order: Cancel) -> None:
        job = self._running
        if job is not None and job.request == order.request and job.epoch <= order.epoch:
            assert self._ends is not None
            self._ends.cancel()
            self._stop()
            self._begin()
            return
        for job in self._queue:
            if job.request == order.request and job.epoch <= order.epoch:
                self._queue.remove(job)
                self._queued_tokens -= job.tokens
                return
