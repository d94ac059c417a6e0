"""The part of an engine that decides, on a virtual clock: real scheduler and block pool, steps that only take time."""

import statistics
from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.simulator.blank import TOKEN
from tercet.simulator.engine_model import EngineModel
from tercet.workers.batch import Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.interjection import StepUnderWay
from tercet.workers.pace import StepContents
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Sequence


@dataclass(slots=True)
class Visit:
    """One request: when it comes, what it is, and when its tokens came."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    times_s: list[float] = field(default_factory=list)

    @property
    def ttft_s(self) -> float:
        return self.times_s[0] - self.at_s

    @property
    def gaps_s(self) -> list[float]:
        return [after - before for before, after in pairwise(self.times_s)]


class VirtualWorker:
    """Serves visits in the order in which they come; a step takes what `EngineModel` says. Prompts share nothing.

    With `layers` whoever comes amid a step may be computed between two of its layers, which all take equally long.
    """

    def __init__(self, config: EngineConfig, *, layers: int = 0) -> None:
        pool = BlockPool(config.kv_blocks, np.zeros(config.kv_blocks, dtype=np.uint64))
        self.scheduler = Scheduler(config, pool)
        self._layers = layers
        self._costs = EngineModel().at_speed(1.0)
        self._coming: list[Visit] = []
        self._arrivals = 0
        self._visits: dict[Sequence, Visit] = {}
        self.served: list[tuple[Sequence, Visit]] = []
        self.used: list[int] = []
        """Blocks, after every step."""
        self.computed_of: Counter[Sequence] = Counter()
        """Tokens."""
        self.now_s = 0.0

    def run(self, visits: Iterable[Visit], until_s: float) -> None:
        self._coming = sorted(visits, key=lambda visit: -visit.at_s)
        while self.now_s < until_s:
            self._let_in()
            batch = self.scheduler.schedule()
            assert not batch.stuck, "a request is larger than the pool"
            if batch.chunks:
                self._step(batch.chunks)
            else:
                self.now_s = self._coming[-1].at_s if self._coming else until_s
        self.scheduler.check_integrity()

    def _let_in(self) -> bool:
        """Everybody who has come by now; whether there is anybody."""
        before = self._arrivals
        while self._coming and self._coming[-1].at_s <= self.now_s:
            self._enter(self._arrivals, self._coming.pop())
            self._arrivals += 1
        return self._arrivals > before

    def _enter(self, arrival: int, visit: Visit) -> None:
        # The first token is one that nobody else's prompt begins with.
        prompt = [arrival, *[TOKEN] * (visit.prompt_tokens - 1)]
        spec = RequestSpec(RequestId(f"r{arrival}"), prompt, Sampling(visit.max_tokens))
        sequence = Sequence(spec, FIRST_EPOCH, "bench", arrival, list(prompt))
        self._visits[sequence] = visit
        assert self.scheduler.enqueue(sequence) is None

    def _step(self, chunks: list[Chunk]) -> None:
        step = StepUnderWay.of(chunks)
        parts = self._layers if self._layers and step.tokens_left else 1
        part_s = self._costs.seconds(StepContents.of(chunks)) / parts
        for part in range(parts):
            if part and self._let_in():
                others = self.scheduler.interject(step.longest, step.tokens_left).chunks
                step.tokens_left -= sum(chunk.tokens for chunk in others)
                self.now_s += self._costs.seconds(StepContents.of(others))
                self._end(others)
            self.now_s += part_s
        self._end(chunks)
        self.used.append(self.scheduler.pool.used)

    def _end(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self.computed_of[chunk.sequence] += chunk.tokens
            completes = chunk.completes
            self.scheduler.advance(chunk.sequence, chunk.sequence.computed + chunk.tokens)
            if completes:
                self._draw(chunk.sequence)

    def _draw(self, sequence: Sequence) -> None:
        visit = self._visits[sequence]
        visit.times_s.append(self.now_s)
        sequence.tokens.append(TOKEN)
        if sequence.output_tokens == visit.output_tokens:
            self.scheduler.remove(sequence)
            self.served.append((sequence, visit))
            del self._visits[sequence]


def quantile(values: Many[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]
