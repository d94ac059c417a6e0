"""A trace at any rate, and how much of it would be in time with one queue and one endless cache for all workers."""

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

from tercet.simulator.traces import ClosedSession, ClosedTrace, Trace, scale_rate, spread_sessions


@dataclass(slots=True)
class Job:
    """A prompt with everything before it cached, and who comes after it, so much later than its end."""

    tokens: int
    next: "list[tuple[float, Job]]" = field(default_factory=list)


class Load:
    """Rates are requests a second. Of sessions, starts and pauses come the faster the higher the rate; those of the file
    begin, at the natural rate, within the time that one of them takes on average."""

    def __init__(self, trace: Trace | ClosedTrace) -> None:
        self._trace = trace
        self._starts_per_s = 1.0
        if isinstance(trace, Trace):
            arrivals = list(trace.arrivals)
            self.natural = len(arrivals) / (arrivals[-1].at_s - arrivals[0].at_s)
        else:
            sessions = [session for session in trace.sessions if session.spawned is None]
            turns = sum(len(session.turns) for session in trace.sessions)
            mean_s = sum(_pauses_s(session) for session in sessions) / len(sessions)
            self._starts_per_s = len(sessions) / mean_s
            self.natural = turns / (2 * mean_s)
        self._roots = list(self._jobs())

    def at(self, rate: float) -> Trace | ClosedTrace:
        factor = rate / self.natural
        if isinstance(self._trace, Trace):
            return scale_rate(self._trace, factor)
        trace = spread_sessions(self._trace, factor * self._starts_per_s, 0)
        return replace(trace, sessions=tuple(_hurried(trace.sessions, factor)))

    def mean_tokens(self) -> float:
        """To compute, if everything is cached that was computed before."""
        jobs = list(self._all())
        return sum(job.tokens for job in jobs) / len(jobs)

    def possible(self, tokens_max: float) -> float:
        """The share of requests with no more to compute than this: of sessions, the others are too late at any rate."""
        if isinstance(self._trace, Trace):
            return 1.0
        jobs = list(self._all())
        return sum(job.tokens <= tokens_max for job in jobs) / len(jobs)

    def in_time(self, rate: float, workers: int, tokens_per_s: float, slo_s: float) -> float:
        """The share in time if whoever is free takes the next in line, and everything computed before is cached for all."""
        free_s, order, done = [0.0] * workers, count(), 0
        factor = rate / self.natural
        coming = [(at_s, next(order), job) for at_s, job in self._starts(rate)]
        heapq.heapify(coming)
        total = 0
        while coming:
            at_s, _, job = heapq.heappop(coming)
            end_s = max(at_s, heapq.heappop(free_s)) + job.tokens / tokens_per_s
            heapq.heappush(free_s, end_s)
            total += 1
            done += end_s - at_s <= slo_s
            for pause_s, after in job.next:
                heapq.heappush(coming, (end_s + pause_s / factor, next(order), after))
        return done / total

    def _starts(self, rate: float) -> Iterator[tuple[float, Job]]:
        trace = self.at(rate)
        if isinstance(trace, Trace):
            times = [arrival.at_s for arrival in trace.arrivals]
        else:
            times = [
                session.starts_s + session.turns[0].think_s
                for session in trace.sessions
                if session.spawned is None
            ]
        return zip(times, self._roots, strict=True)

    def _all(self) -> Iterator[Job]:
        waiting = list(self._roots)
        while waiting:
            job = waiting.pop()
            yield job
            waiting += [after for _, after in job.next]

    def _jobs(self) -> Iterator[Job]:
        """Those that start by themselves, in order."""
        trace, seen = self._trace, set[int]()
        if isinstance(trace, Trace):
            for arrival in trace.arrivals:
                yield Job(_missing(arrival.prompt_tokens, arrival.names, trace.block_tokens, seen))
            return
        known: dict[str, list[Job]] = {}
        for session in trace.sessions:
            chain = known[session.id] = [
                Job(_missing(turn.prompt_tokens, turn.names, trace.block_tokens, seen))
                for turn in session.turns
            ]
            for job, after, turn in zip(chain, chain[1:], session.turns[1:], strict=False):
                job.next.append((turn.think_s, after))
            if session.spawned is None:
                yield chain[0]
            else:
                parent = known[session.spawned.session][session.spawned.turn]
                pause_s = session.spawned.delay_s + session.turns[0].think_s
                parent.next.append((pause_s, chain[0]))


def _missing(tokens: int, names: Iterable[int], block_tokens: int, seen: set[int]) -> int:
    names = tuple(names)
    hit = next((n for n, name in enumerate(names) if name not in seen), len(names))
    seen.update(names)
    return max(1, tokens - hit * block_tokens)


def _pauses_s(session: ClosedSession) -> float:
    return sum(turn.think_s for turn in session.turns)


def _hurried(sessions: Iterable[ClosedSession], factor: float) -> Iterator[ClosedSession]:
    """All pauses shorter."""
    for session in sessions:
        turns = tuple(replace(turn, think_s=turn.think_s / factor) for turn in session.turns)
        spawned = session.spawned
        if spawned is not None:
            spawned = replace(spawned, delay_s=spawned.delay_s / factor)
        yield replace(session, turns=turns, spawned=spawned)


def capacity(
    in_time: Callable[[float], float], share: float, grid: list[float], start: float
) -> float:
    """The largest rate of the grid at which that share is in time, 0 if there is none, as if more were worse.

    Bisection between the first rates on both sides of `start`, looked for in steps that double."""
    low, high = -1, len(grid)
    at, step = min(range(high), key=lambda n: abs(grid[n] - start)), 1
    while high - low > 1:
        if in_time(grid[at]) >= share:
            low = at
        else:
            high = at
        if low >= 0 and high < len(grid):
            at = (low + high) // 2
        else:
            at = min(low + step, len(grid) - 1) if low >= 0 else max(high - step, 0)
            step *= 2
    return grid[low] if low >= 0 else 0.0
