"""A worker of Dynamo's offline replay, made again: steps with chunked prefill, a prefix cache, and its default timing model.

Times are its `polynomial` model's, in milliseconds: a step's prefill of T new tokens takes 4.209989e-7 T² + 1.518344e-2 T +
16.50142, its decode with a share p of the KV blocks in use takes -25.74 p² + 54.01 p + 5.74. What is simpler here: a
request gets all its blocks at once, so nothing is ever preempted.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from tercet.latency import UNFITTED, LatencyModel, attended_tokens
from tercet.router.prefix_names import PrefixName

BLOCK_TOKENS = 512
STEP_TOKENS_MAX = 8192
RUNNING_MAX = 256
LEAP_STEPS_MAX = 32
"""So many decode steps without anything else are taken at once, all as long as the first."""


def prefill_s(tokens: int) -> float:
    """Of one step."""
    return (4.209989e-7 * tokens**2 + 1.518344e-2 * tokens + 16.50142) / 1e3 if tokens else 0.0


def decode_s(share: float) -> float:
    """Of one step in which anybody decodes."""
    return (-25.74 * share**2 + 54.01 * share + 5.74) / 1e3


@dataclass(slots=True, eq=False)
class Job:
    """A request and how far it is."""

    arrived_s: float
    input_tokens: int
    output_tokens: int
    names: list[PrefixName]
    """Of its full blocks."""
    hoped_tokens: int = 0
    """Cached when it joined the queue."""
    cached_tokens: int = 0
    computed: int = 0
    generated: int = 0
    first_s: float = 0.0

    @property
    def blocks(self) -> int:
        return math.ceil((self.input_tokens + self.output_tokens) / BLOCK_TOKENS)

    @property
    def prefilling(self) -> bool:
        return self.generated == 0


class BlockCache:
    """Named blocks, those that nobody uses least recently used first, and room for the nameless ones of running jobs."""

    def __init__(self, blocks_max: int) -> None:
        self.blocks_max = blocks_max
        self._used: dict[PrefixName, int] = {}
        self._idle: OrderedDict[PrefixName, None] = OrderedDict()
        self._nameless = 0

    @property
    def used(self) -> int:
        """Blocks of running jobs."""
        return len(self._used) + self._nameless

    def hit(self, names: list[PrefixName]) -> int:
        """How many leading blocks are there."""
        there = (
            n for n, name in enumerate(names) if name not in self._used and name not in self._idle
        )
        return next(there, len(names))

    def admit(self, names: list[PrefixName], blocks: int) -> bool:
        """Use these cached blocks, and so many in all; False while there is no room."""
        fresh = blocks - len(names)
        idle = sum(name in self._idle for name in names)
        if self.used + idle + fresh > self.blocks_max:
            return False
        for name in names:
            self._use(name)
        self._nameless += fresh
        self._evict()
        return True

    def fill(self, names: list[PrefixName]) -> None:
        """Nameless blocks of a running job have content now."""
        for name in names:
            self._nameless -= 1
            self._use(name)

    def release(self, names: list[PrefixName], blocks: int) -> None:
        """A job is over; the ends of prompts are forgotten before their beginnings."""
        self._nameless -= blocks - len(names)
        for name in reversed(names):
            self._used[name] -= 1
            if not self._used[name]:
                del self._used[name]
                self._idle[name] = None

    def _use(self, name: PrefixName) -> None:
        self._idle.pop(name, None)
        self._used[name] = self._used.get(name, 0) + 1

    def _evict(self) -> None:
        while self.used + len(self._idle) > self.blocks_max:
            self._idle.popitem(last=False)


@dataclass(slots=True)
class Step:
    """What is being computed."""

    begin_s: float
    one_s: float
    """Of one step; a leap is several."""
    chunks: list[tuple[Job, int]]
    decodes: list[Job]
    repeats: int = 1

    @property
    def end_s(self) -> float:
        return self.begin_s + self.one_s * self.repeats


@dataclass(slots=True)
class Machine:
    """One worker."""

    cache: BlockCache
    waiting: deque[Job] = field(default_factory=deque)
    running: list[Job] = field(default_factory=list)
    done: list[Job] = field(default_factory=list)
    model: LatencyModel = field(default_factory=LatencyModel)
    """What the worker measures of itself, as our engines do."""
    _now_s: float = 0.0
    _step: Step | None = None

    @property
    def pending_tokens(self) -> int:
        """Prompt tokens not computed yet."""
        begun = sum(job.input_tokens - job.computed for job in self.running if job.prefilling)
        return begun + sum(job.input_tokens - job.hoped_tokens for job in self.waiting)

    @property
    def context_tokens(self) -> int:
        return sum(job.input_tokens + job.generated for job in self.running)

    def submit(self, job: Job) -> None:
        """At its arrival; `advance` to it first."""
        job.hoped_tokens = BLOCK_TOKENS * self.cache.hit(job.names)
        self.waiting.append(job)
        if self._step is None:
            self._now_s = job.arrived_s
        elif self._step.repeats > 1:  # it joins the next step, not the end of the leap
            begun = math.ceil((job.arrived_s - self._step.begin_s) / self._step.one_s)
            self._step.repeats = min(self._step.repeats, max(1, begun))

    def advance(self, until_s: float) -> None:
        """Do everything that has an end by then."""
        while self._step is not None or self.waiting or self.running:
            if self._step is None:
                self._step = self._plan()
            if self._step.end_s > until_s:
                return
            step, self._step = self._step, None
            self._finish(step)

    def _plan(self) -> Step:
        budget = STEP_TOKENS_MAX
        decodes = [job for job in self.running if not job.prefilling]
        budget -= len(decodes)
        chunks: list[tuple[Job, int]] = []
        for job in [job for job in self.running if job.prefilling]:
            if budget:
                chunks.append((job, min(budget, job.input_tokens - job.computed)))
                budget -= chunks[-1][1]
        while budget and self.waiting and len(self.running) < RUNNING_MAX:
            job = self.waiting[0]
            if not self._admit(job):
                break
            chunks.append((job, min(budget, job.input_tokens - job.computed)))
            budget -= chunks[-1][1]
        assert chunks or decodes, "a request needs more blocks than there are"
        return self._timed(chunks, decodes)

    def _timed(self, chunks: list[tuple[Job, int]], decodes: list[Job]) -> Step:
        one_s = prefill_s(sum(tokens for _, tokens in chunks))
        if decodes:
            context_tokens = sum(job.input_tokens + job.generated for job in decodes)
            one_s += decode_s(min(1.0, context_tokens / (self.cache.blocks_max * BLOCK_TOKENS)))
        step = Step(self._now_s, one_s, chunks, decodes)
        if not chunks:
            left = min(job.output_tokens - job.generated for job in decodes)
            step.repeats = min(left, LEAP_STEPS_MAX)
        self._observe(step)
        return step

    def _admit(self, job: Job) -> bool:
        """Its last token is computed even if it is cached."""
        cached = min(self.cache.hit(job.names), (job.input_tokens - 1) // BLOCK_TOKENS)
        if not self.cache.admit(job.names[:cached], job.blocks):
            return False
        self.waiting.popleft()
        self.running.append(job)
        job.computed = job.cached_tokens = cached * BLOCK_TOKENS
        return True

    def _finish(self, step: Step) -> None:
        self._now_s = step.end_s
        for job, tokens in step.chunks:
            before = job.computed // BLOCK_TOKENS
            job.computed += tokens
            self.cache.fill(job.names[before : job.computed // BLOCK_TOKENS])
            if job.computed == job.input_tokens:
                job.generated, job.first_s = 1, self._now_s
        for job in step.decodes:
            job.generated += step.repeats
        for job in [job for job in self.running if job.generated >= job.output_tokens]:
            self.running.remove(job)
            self.cache.release(job.names, job.blocks)
            self.done.append(job)

    def _observe(self, step: Step) -> None:
        """As `tercet.workers.pace` does."""
        batch = len(step.decodes)
        context = sum(job.input_tokens + job.generated for job in step.decodes)
        tokens = sum(tokens for _, tokens in step.chunks)
        attended = sum(attended_tokens(count, job.computed + count) for job, count in step.chunks)
        if not tokens:
            self.model.observe_decode(batch, context, step.one_s)
        elif not batch:
            self.model.observe_prefill(tokens, attended, step.one_s)
        elif self.model.decode_coefficients != UNFITTED:
            decoding_s = self.model.predict_decode_s(batch, context)
            self.model.observe_prefill(tokens, attended, step.one_s - decoding_s)
