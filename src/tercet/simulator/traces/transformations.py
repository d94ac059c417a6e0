"""Traces made of traces. What is replayed stays so: nothing is read before somebody walks through the result.

Each says in the new trace's name what was done, so that no figure is taken for one of the published trace.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice, takewhile

from tercet.router.prefix_names import mix
from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Trace
from tercet.simulator.traces.naming import named, salt_of
from tercet.simulator.traces.replayed import derived


def scale_rate(trace: Trace, factor: float) -> Trace:
    """The same requests, arriving `factor` times as fast."""
    assert factor > 0, f"no rate: {factor}"

    def change(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        return (replace(arrival, at_s=arrival.at_s / factor) for arrival in arrivals)

    return _changed(trace, f"rate x{factor:g}", derived(trace.arrivals, change))


def head(trace: Trace, count: int) -> Trace:
    """The first `count` requests."""
    assert count > 0, f"nothing left: {count}"
    first = derived(trace.arrivals, lambda arrivals: islice(arrivals, count))
    return _changed(trace, f"first {count}", first)


def window(trace: Trace, from_s: float, to_s: float) -> Trace:
    """The requests that arrive in [from_s, to_s), timed from its beginning."""
    assert 0 <= from_s < to_s, f"no window: {from_s} to {to_s}"

    def change(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        for arrival in takewhile(lambda arrival: arrival.at_s < to_s, arrivals):
            if arrival.at_s >= from_s:
                yield replace(arrival, at_s=arrival.at_s - from_s)

    return _changed(trace, f"{from_s:g} to {to_s:g} s", derived(trace.arrivals, change))


def regroup(trace: Trace, block_tokens: int) -> Trace:
    """The same prompts in larger blocks: a multiple of the present ones."""
    every = _every(trace.block_tokens, block_tokens)

    def change(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        return (replace(arrival, names=arrival.names[every - 1 :: every]) for arrival in arrivals)

    return replace(trace, block_tokens=block_tokens, arrivals=derived(trace.arrivals, change))


def regroup_sessions(trace: ClosedTrace, block_tokens: int) -> ClosedTrace:
    """The same for sessions."""
    every = _every(trace.block_tokens, block_tokens)

    def change(sessions: Iterable[ClosedSession]) -> Iterator[ClosedSession]:
        for session in sessions:
            turns = (replace(turn, names=turn.names[every - 1 :: every]) for turn in session.turns)
            yield replace(session, turns=tuple(turns))

    return replace(trace, block_tokens=block_tokens, sessions=derived(trace.sessions, change))


def head_sessions(trace: ClosedTrace, count: int) -> ClosedTrace:
    """The first `count` sessions."""
    assert count > 0, f"nothing left: {count}"
    first = derived(trace.sessions, lambda sessions: islice(sessions, count))
    return replace(trace, name=f"{trace.name}, first {count} sessions", sessions=first)


COMMON_SHARE = 0.1
"""A prefix of more than so many of the requests is a system prompt, not a conversation."""


def overlay_hot_prefix(
    trace: Trace, share: float = 0.3, tokens: int = 6144, seed: int = 0
) -> Trace:
    """A share of the conversations, drawn by lot, gets one and the same prefix of `tokens` tokens in front of all its prompts.

    Conversations are told apart by the first name that is not common to more than a tenth of the requests, so what the turns
    of one had in common they still have. `tokens` is whole blocks, else the old blocks would be cut anew, and what is shared
    within a block nobody knows.
    """
    blocks, rest = divmod(tokens, trace.block_tokens)
    assert 0 <= share <= 1, f"not a share: {share}"
    assert blocks > 0 == rest, f"{tokens} tokens are not whole blocks of {trace.block_tokens}"
    salt, lot = salt_of("hot prefix", seed), salt_of("lot", seed)
    hot = named(salt, range(blocks))

    def change(arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
        common = _common(trace.arrivals)
        for index, arrival in enumerate(arrivals):
            own = next((name for name in arrival.names if name not in common), index)
            if mix(lot ^ own) >= share * 2**64:
                yield arrival
                continue
            names = hot + tuple([mix(name ^ salt) for name in arrival.names])
            yield replace(arrival, prompt_tokens=arrival.prompt_tokens + tokens, names=names)

    label = f"synthetic hot prefix of {tokens} tokens on {share:.0%}"
    return _changed(trace, label, derived(trace.arrivals, change))


def _common(arrivals: Sequence[Arrival]) -> frozenset[int]:
    """Names that more than `COMMON_SHARE` of the requests have, and more than one."""
    counts = Counter(name for arrival in arrivals for name in arrival.names)
    most = max(1, COMMON_SHARE * len(arrivals))
    return frozenset(name for name, count in counts.items() if count > most)


def _changed(trace: Trace, label: str, arrivals: Sequence[Arrival]) -> Trace:
    return replace(trace, name=f"{trace.name}, {label}", arrivals=arrivals)


def _every(block_tokens: int, wanted: int) -> int:
    every, rest = divmod(wanted, block_tokens)
    assert every > 0 == rest, f"{wanted} tokens are not whole blocks of {block_tokens}"
    return every
