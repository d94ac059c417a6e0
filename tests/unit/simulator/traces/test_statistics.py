"""Figures of a trace small enough to check by hand."""

import pytest

from tercet.simulator.traces import Arrival, ClosedSession, ClosedTrace, Trace, Turn
from tercet.simulator.traces.statistics import arrival_statistics, length_statistics


def test_an_infinite_cache_holds_what_has_been_seen_from_the_front() -> None:
    prompts = [(1, 2, 3), (1, 2, 4), (9, 2, 3), (1, 2, 3)]
    trace = Trace("", 10, [Arrival(0, 35, 1, names) for names in prompts])
    found = length_statistics(trace)
    assert found.cached_tokens == 0 + 20 + 0 + 30
    assert found.ideal_hit_share == 50 / 140
    assert found.unique_tokens == 90


def test_quantiles_are_lengths_that_occur() -> None:
    trace = Trace("", 10, [Arrival(0, tokens, 2 * tokens, ()) for tokens in range(1, 101)])
    found = length_statistics(trace)
    assert found.prompt == (50, 90, 99, 100)
    assert found.output == (100, 180, 198, 200)


def test_sessions_count_turn_by_turn() -> None:
    turns = (Turn(0, 10, 1, (1,)), Turn(0, 20, 1, (1, 2)))
    trace = ClosedTrace("", 10, [ClosedSession("a", 0, turns), ClosedSession("b", 0, turns[:1])])
    assert length_statistics(trace).requests == 3
    assert length_statistics(trace).cached_tokens == 20


def test_even_arrivals_have_no_variation_and_bundled_ones_have_much() -> None:
    even = arrival_statistics(Trace("", 10, [Arrival(i, 1, 1, ()) for i in range(11)]))
    assert (even.span_s, even.gap_cv, even.rate_per_s) == (10, 0, 1.1)
    bundled = arrival_statistics(Trace("", 10, [Arrival(i // 10, 1, 1, ()) for i in range(101)]))
    assert bundled.gap_cv == pytest.approx(3.0)
