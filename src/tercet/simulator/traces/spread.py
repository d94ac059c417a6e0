"""Times by lot, for what was recorded without them: arrivals in ticks of a few seconds, sessions that know only themselves."""

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import replace

from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Trace
from tercet.simulator.traces.replayed import derived


def spread(trace: Trace, spread_s: float, seed: int = 0) -> Trace:
    """Each arrival later by U(0, spread_s), one draw a request in the trace's order, then in the order of time again."""
    assert spread_s > 0, f"nothing to spread: {spread_s}"

    def change(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        dice = random.Random(seed)
        waiting: list[tuple[float, int, Arrival]] = []
        for index, arrival in enumerate(arrivals):
            while waiting and waiting[0][0] <= arrival.at_s:  # nobody can come before it any more
                yield heapq.heappop(waiting)[2]
            at_s = arrival.at_s + dice.uniform(0, spread_s)
            heapq.heappush(waiting, (at_s, index, replace(arrival, at_s=at_s)))
        while waiting:
            yield heapq.heappop(waiting)[2]

    name = f"{trace.name}, spread over {spread_s:g} s"
    return replace(trace, name=name, arrivals=derived(trace.arrivals, change))


def spread_sessions(trace: ClosedTrace, sessions_per_s: float, seed: int = 0) -> ClosedTrace:
    """Sessions start at random at that rate, in the trace's order; sub-agents move with their parents."""
    assert sessions_per_s > 0, f"no rate: {sessions_per_s}"

    def change(sessions: Iterable[ClosedSession]) -> Iterator[ClosedSession]:
        dice = random.Random(seed)
        start_s = shift_s = 0.0
        for session in sessions:
            if session.spawned is None:
                start_s += dice.expovariate(sessions_per_s)
                shift_s = start_s - session.starts_s
            yield replace(session, starts_s=session.starts_s + shift_s)

    name = f"{trace.name}, {sessions_per_s:g} sessions/s"
    return replace(trace, name=name, sessions=derived(trace.sessions, change))
