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
from tercet.workers.block_pool import BlockPool
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
    """Serves visits in the order in which they come; a step takes what `EngineModel` says. Prompts share nothing."""

    def __init__(self, config: EngineConfig) -> None:
        pool = BlockPool(config.kv_blocks, np.zeros(config.kv_blocks, dtype=np.uint64))
        self.scheduler = Scheduler(config, pool)
        self._costs = EngineModel().at_speed(1.0)
        self._visits: dict[Sequence, Visit] = {}
        self.served: list[tuple[Sequence, Visit]] = []
        self.used: list[int] = []
        """Blocks, after every step."""
        self.computed_of: Counter[Sequence] = Counter()
        """Tokens."""
        self.now_s = 0.0

    def run(self, visits: Iterable[Visit], until_s: float) -> None:
        coming = sorted(visits, key=lambda visit: -visit.at_s)
        arrivals = 0
        while self.now_s < until_s:
            while coming and coming[-1].at_s <= self.now_s:
                self._enter(arrivals, coming.pop())
                arrivals += 1
            if not self._step():
                self.now_s = coming[-1].at_s if coming else until_s
        self.scheduler.check_integrity()

    def _enter(self, arrival: int, visit: Visit) -> None:
        # The first token is one that nobody else's prompt begins with.
        prompt = [arrival, *[TOKEN] * (visit.prompt_tokens - 1)]
        spec = RequestSpec(RequestId(f"r{arrival}"), prompt, Sampling(visit.max_tokens))
        sequence = Sequence(spec, FIRST_EPOCH, "bench", arrival, list(prompt))
        self._visits[sequence] = visit
        assert self.scheduler.enqueue(sequence) is None

    def _step(self) -> bool:
        batch = self.scheduler.schedule()
        assert not batch.stuck, "a request is larger than the pool"
        self.now_s += self._costs.seconds(StepContents.of(batch.chunks))
        self.used.append(self.scheduler.pool.used)
        for chunk in batch.chunks:
            self.computed_of[chunk.sequence] += chunk.tokens
            completes = chunk.completes
            self.scheduler.advance(chunk.sequence, chunk.sequence.computed + chunk.tokens)
            if completes:
                self._draw(chunk.sequence)
        return bool(batch.chunks)

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
