"""Which worker decodes: the freer of two drawn by lot, or the one that holds the conversation where that saves more.

    freeness = (capacity - usage) / batch        decode steps until the worker is full, the request counted in; at least 0
    lacking  = usage - capacity                  tokens that are too many already; at least 0
    cost     = missing + lacking + rate · N · N / (N + freeness)         the least wins; all in tokens

`missing` is what would have to be pulled. `rate` is how many tokens are pulled in the time of one decode step, so
rate · N is what decoding N tokens, a typical output, is worth. N / (N + freeness) is the chance that a request outlives the
free memory, for lengths with the median N and a heavy tail; then somebody is preempted and computed again, at about that
price. Affinity thus needs no weight. The draw keeps front doors with equal reports from all finding the same worker.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import islice

import msgspec

from tercet.latency import UNFITTED
from tercet.router.lot import Lot
from tercet.router.policy import Ask, Choice, Dice, Pool, Scored, WorkerView
from tercet.wire import LoadReport

OUTPUT_TOKENS = 256
"""A typical output, where nobody says better."""
TOKENS_PER_STEP = 1000.0
"""The rate while steps or pulls are not measured: 20 ms a step, 128 KiB a token, 6.5 GB/s."""
DRAWS_MAX = 8
"""Workers drawn in search of two with room, before the whole pool is looked at instead."""
HOLDERS_MAX = 2
"""Workers with most of the request cached that join the two drawn."""


class FreenessReason(StrEnum):
    """Why a request went to a decode worker; shown with every request."""

    FREER = "freer"
    """Nobody compared has more of it cached: the one with more decode steps until it is full."""
    AFFINITY = "affinity"
    """It has most of the request cached."""
    CROWDED = "crowded"
    """Another one has more cached, but is fuller than that is worth."""
    FULL = "full"
    """Nobody has room: the best of all."""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A worker with what follows from its view. `capacity_tokens` 0 stands for not known."""

    view: WorkerView
    capacity_tokens: int
    usage_tokens: int
    batch: int
    """Requests in its batch, or about to be."""

    @classmethod
    def of(cls, ask: Ask, view: WorkerView, capacity_tokens: int) -> "Candidate":
        """The report, corrected by our own dispatches that it does not show. `capacity_tokens` is for who has no report.

        A queue is counted whole, by its prompts: their lengths one by one are not known here.
        """
        usage_tokens, batch = view.unreported_context_tokens, view.unreported_requests
        report = view.report
        if report is not None and report.blocks_total:
            blocks = report.blocks_total - report.quarantined_blocks
            capacity_tokens = blocks * ask.block_tokens
            queued_tokens = report.pending_prefill_tokens if report.waiting else 0
            usage_tokens += report.blocks_used * ask.block_tokens + queued_tokens
            batch += report.running + report.pulling + report.waiting
        return cls(view, capacity_tokens, max(0, usage_tokens), max(0, batch))

    def free_tokens(self, ask: Ask) -> int:
        """Left to decode into with the request in it; negative when that is too much already."""
        return self.capacity_tokens - self.usage_tokens - ask.tokens

    def has_room(self, ask: Ask) -> bool:
        """For the request, and a block for everybody to grow. Cached blocks are free ones until they are used again."""
        if not self.capacity_tokens:
            return True
        wanted = ask.tokens + (self.batch + 1) * ask.block_tokens
        return self.usage_tokens + wanted <= self.capacity_tokens


class Rate:
    """Tokens pulled in the time of one decode step, by the last measurements that were seen; one for a pool of equals."""

    def __init__(self) -> None:
        self._step_s = self._pull_s = 0.0

    def see(self, ask: Ask, reports: Iterable[LoadReport | None]) -> float:
        """The rate, after these reports of workers that are compared: the longest step and the mean pull among them."""
        step_s = pull_s = 0.0
        pulled_bytes = block_bytes = 0
        for report in reports:
            if report is None:
                continue
            if report.decode_coefficients != UNFITTED:
                step_s = max(step_s, _step_s(ask, report))
            if report.block_bytes:
                pulled_bytes += report.pull_bytes
                pull_s += report.pull_s
                block_bytes = max(block_bytes, report.block_bytes)
        self._step_s = step_s or self._step_s
        if pulled_bytes:
            self._pull_s = pull_s / pulled_bytes * block_bytes / ask.block_tokens
        measured = self._step_s > 0 and self._pull_s > 0
        return self._step_s / self._pull_s if measured else TOKENS_PER_STEP


def _step_s(ask: Ask, report: LoadReport) -> float:
    fixed_s, request_s, token_s = report.decode_coefficients
    context_tokens = report.context_tokens + ask.tokens
    return fixed_s + request_s * (report.running + 1) + token_s * context_tokens


class Freeness:
    """Looks at four workers at most, however many there are, unless it finds no two with room."""

    def __init__(self, dice: Dice, output_tokens: float = OUTPUT_TOKENS) -> None:
        self._lot, self._output_tokens = Lot(dice), output_tokens
        self._rate = Rate()
        self._capacity_tokens = 0
        """Of the last worker that reported: workers of a pool are equal."""

    def choose(self, ask: Ask, pool: Pool) -> Choice | None:
        """The cheapest of two by lot and who holds the request; None when nobody in the pool may be asked."""
        candidates = list(islice(self._roomy(ask, self._lot.draw(pool, DRAWS_MAX)), 2))
        if len(candidates) < 2:
            everybody = [self._look(ask, view) for view in pool if not view.suspect]
            candidates = [each for each in everybody if each.has_room(ask)] or everybody
        else:
            known = {candidate.view.worker for candidate in candidates}
            holders = islice(self._roomy(ask, pool.nearest()), HOLDERS_MAX)
            candidates += [holder for holder in holders if holder.view.worker not in known]
        return self._cheapest(ask, candidates) if candidates else None

    def _cheapest(self, ask: Ask, candidates: Sequence[Candidate]) -> Choice:
        rate = self._rate.see(ask, (candidate.view.report for candidate in candidates))
        scored = tuple(
            Scored(candidate.view, self._cost_tokens(ask, candidate, rate))
            for candidate in candidates
        )
        costs = [each.cost_tokens for each in scored]
        best = costs.index(min(costs))
        reason = _reason([candidate.view.hit_tokens for candidate in candidates], best)
        if not candidates[best].has_room(ask):
            reason = FreenessReason.FULL
        return Choice(scored[best].view, scored, reason)

    def _cost_tokens(self, ask: Ask, candidate: Candidate, rate: float) -> float:
        wanted, free_tokens = self._output_tokens, candidate.free_tokens(ask)
        freeness, lacking_tokens = max(0, free_tokens) / (candidate.batch + 1), max(0, -free_tokens)
        risked_tokens = rate * wanted * wanted / (wanted + freeness)
        return candidate.view.miss_tokens(ask) + lacking_tokens + risked_tokens

    def _roomy(self, ask: Ask, views: Iterable[WorkerView]) -> Iterator[Candidate]:
        """Those of them that may be given work and have room for it."""
        for view in views:
            if not view.suspect:
                candidate = self._look(ask, view)
                if candidate.has_room(ask):
                    yield candidate

    def _look(self, ask: Ask, view: WorkerView) -> Candidate:
        candidate = Candidate.of(ask, view, self._capacity_tokens)
        self._capacity_tokens = candidate.capacity_tokens
        return candidate


def _reason(hits: Sequence[int], best: int) -> FreenessReason:
    if hits[best] < max(hits):
        return FreenessReason.CROWDED
    return FreenessReason.AFFINITY if hits[best] > min(hits) else FreenessReason.FREER
