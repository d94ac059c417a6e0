"""What a trace looks like in a dozen figures, computed in one walk."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from tercet.simulator.traces.arrival import Arrival, ClosedTrace, Trace, Turn


class Quantiles(NamedTuple):
    p50: int
    p90: int
    p99: int
    max: int


@dataclass(frozen=True, slots=True)
class LengthStatistics:
    """Requests by length, and how much of their prompts one infinite cache, empty at first, would hold already."""

    requests: int
    prompt: Quantiles
    output: Quantiles
    prompt_tokens: int
    cached_tokens: int
    """In full blocks."""

    @property
    def ideal_hit_share(self) -> float:
        """Of all prompt tokens."""
        return self.cached_tokens / self.prompt_tokens

    @property
    def unique_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens


@dataclass(frozen=True, slots=True)
class ArrivalStatistics:
    """An open loop's times."""

    span_s: float
    gap_cv: float
    """Standard deviation of the times between arrivals, over their mean; 0 where there are none."""
    requests: int

    @property
    def rate_per_s(self) -> float:
        return self.requests / self.span_s if self.span_s else math.inf


def length_statistics(trace: Trace | ClosedTrace) -> LengthStatistics:
    """Of all requests; sessions are walked through one after the other."""
    prompts, outputs = array("q"), array("q")
    seen: set[int] = set()
    cached = 0
    for request in _requests(trace):
        prompts.append(request.prompt_tokens)
        outputs.append(request.output_tokens)
        hit = sum(1 for _ in takewhile(seen.__contains__, request.names))
        cached += hit
        seen.update(request.names[hit:])
    cached_tokens = cached * trace.block_tokens
    return LengthStatistics(
        len(prompts), _quantiles(prompts), _quantiles(outputs), sum(prompts), cached_tokens
    )


def _requests(trace: Trace | ClosedTrace) -> Iterable[Arrival | Turn]:
    if isinstance(trace, Trace):
        return trace.arrivals
    return (turn for session in trace.sessions for turn in session.turns)


def _quantiles(values: "array[int]") -> Quantiles:
    """By nearest rank."""
    ordered = sorted(values)
    p50, p90, p99 = (ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.9, 0.99))
    return Quantiles(p50, p90, p99, ordered[-1])


def arrival_statistics(trace: Trace) -> ArrivalStatistics:
    """One walk, nothing kept: Welford's sums."""
    mean = squares = 0.0
    first_s = last_s = math.nan
    requests = 0
    for arrival in trace.arrivals:
        requests += 1
        if requests == 1:
            first_s = last_s = arrival.at_s
            continue
        gap, last_s = arrival.at_s - last_s, arrival.at_s
        difference = gap - mean
        mean += difference / (requests - 1)
        squares += difference * (gap - mean)
    cv = math.sqrt(squares / (requests - 1)) / mean if mean else 0.0
    return ArrivalStatistics(last_s - first_s, cv, requests)
