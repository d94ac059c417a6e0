"""Traces made of traces."""

import random
from collections import Counter

import pytest

from tercet.simulator.traces import (
    Arrival,
    ClosedSession,
    ClosedTrace,
    Trace,
    Turn,
    head,
    head_sessions,
    overlay_hot_prefix,
    regroup,
    regroup_sessions,
    scale_rate,
    spread,
    window,
)
from tercet.simulator.traces.replayed import Replayed


def trace_of(*times: float, blocks: int = 3) -> Trace:
    """Prompts of some 4-token blocks and one token; the first block is common to all, the rest to nobody."""
    arrivals = [
        Arrival(at_s, 4 * blocks + 1, 5, (7, *(1000 * i + j for j in range(1, blocks))))
        for i, at_s in enumerate(times, 1)
    ]
    return Trace("made up", 4, tuple(arrivals))


def test_rate_head_and_window_choose_and_time_requests() -> None:
    trace = trace_of(0, 1, 2, 3, 4)
    assert [arrival.at_s for arrival in scale_rate(trace, 2).arrivals] == [0, 0.5, 1, 1.5, 2]
    assert head(trace, 2).arrivals == trace.arrivals[:2]
    assert [arrival.at_s for arrival in window(trace, 1, 3).arrivals] == [0, 1]


def test_a_changed_trace_says_so_in_its_name() -> None:
    trace = overlay_hot_prefix(spread(scale_rate(trace_of(0), 3), 3.0), 0.3, 8)
    changes = "rate x3, spread over 3 s, synthetic hot prefix of 8 tokens on 30%"
    assert trace.name == f"made up, {changes}"


def test_spreading_draws_once_a_request_in_order_and_sorts_again() -> None:
    times = [0.0] * 5 + [3.0] * 5 + [4.0] * 3
    dice = random.Random(0)
    expected = sorted(at_s + dice.uniform(0, 3) for at_s in times)
    assert [arrival.at_s for arrival in spread(trace_of(*times), 3.0).arrivals] == expected


def test_lazy_traces_stay_lazy_and_change_alike() -> None:
    trace = trace_of(*range(50))
    lazy = Trace(trace.name, 4, Replayed(lambda: iter(trace.arrivals)))

    def changed(trace: Trace) -> Trace:
        spreaded = spread(window(head(scale_rate(trace, 2), 40), 2, 15), 3.0, seed=5)
        return overlay_hot_prefix(regroup(spreaded, 8), 0.5, 16, seed=2)

    result = changed(lazy)
    assert isinstance(result.arrivals, Replayed)
    assert list(result.arrivals) == list(result.arrivals) == list(changed(trace).arrivals)


def test_larger_blocks_keep_the_name_at_their_end() -> None:
    (arrival,) = regroup(trace_of(0, blocks=5), 8).arrivals
    assert arrival.names == (1001, 1003)
    turn = Turn(0, 21, 5, (1, 2, 3, 4, 5))
    sessions = ClosedTrace("made up", 4, (ClosedSession("a", 0, (turn,)),) * 3)
    assert regroup_sessions(sessions, 16).sessions[0].turns[0].names == (4,)
    assert len(head_sessions(sessions, 2).sessions) == 2


def test_a_hot_prefix_is_common_to_its_share_and_keeps_apart_what_was_apart() -> None:
    trace = trace_of(*range(1000))
    hot = overlay_hot_prefix(trace, 0.3, 8, seed=1)
    drawn = [new for new in hot.arrivals if new.prompt_tokens == 13 + 8]
    assert len(drawn) == pytest.approx(300, abs=60)
    assert len({arrival.names[:2] for arrival in drawn}) == 1
    assert all(len(arrival.names) == 5 for arrival in drawn)
    assert len({arrival.names[2] for arrival in drawn} | {7}) == 2, "in common before, but renamed"
    assert len({arrival.names[3] for arrival in drawn}) == len(drawn)
    left = [new for new in hot.arrivals if new.prompt_tokens == 13]
    assert len(left) + len(drawn) == 1000
    assert set(left) < set(trace.arrivals)


def test_turns_of_a_conversation_get_a_hot_prefix_together() -> None:
    talks = range(100, 300)
    prompts = [
        (7, talk, *range(10 * talk, 10 * talk + turn)) for turn in range(3) for talk in talks
    ]
    arrivals = tuple(Arrival(at_s, 4 * len(names), 5, names) for at_s, names in enumerate(prompts))
    hot = overlay_hot_prefix(Trace("made up", 4, arrivals), 0.3, 8)
    drawn = [new for new, old in zip(hot.arrivals, arrivals, strict=True) if new != old]
    assert len(drawn) == pytest.approx(180, abs=45)
    turns = Counter(new.names[3] for new in drawn)
    assert set(turns.values()) == {3}, "a conversation has lost what its turns had in common"


def test_lots_are_drawn_by_seed() -> None:
    trace = trace_of(*range(100))
    assert overlay_hot_prefix(trace, 0.5, 8, 1) == overlay_hot_prefix(trace, 0.5, 8, 1)
    assert overlay_hot_prefix(trace, 0.5, 8, 1) != overlay_hot_prefix(trace, 0.5, 8, 2)
    assert spread(trace, 1.0, 1) != spread(trace, 1.0, 2)


def test_blocks_are_never_cut_through() -> None:
    with pytest.raises(AssertionError, match="10 tokens are not whole blocks of 4"):
        overlay_hot_prefix(trace_of(0), 0.3, 10)
    with pytest.raises(AssertionError, match="6 tokens are not whole blocks of 4"):
        regroup(trace_of(0), 6)
