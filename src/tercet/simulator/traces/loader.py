"""From a path to a trace: finds the format, reads the file, puts the arrivals in order."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tercet.errors import TraceError
from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Trace
from tercet.simulator.traces.azure import AZURE
from tercet.simulator.traces.burstgpt import BURSTGPT
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions, SessionFormat
from tercet.simulator.traces.lines import opened
from tercet.simulator.traces.mooncake import MOONCAKE
from tercet.simulator.traces.ragpulse import RAGPULSE
from tercet.simulator.traces.replayed import Replayed
from tercet.simulator.traces.servegen import SERVEGEN
from tercet.simulator.traces.sessions import SESSIONS
from tercet.simulator.traces.synthetic import SYNTHETIC

Format = ArrivalFormat | SessionFormat

FORMATS: Mapping[str, Format] = {
    kind.name: kind for kind in (MOONCAKE, AZURE, BURSTGPT, RAGPULSE, SESSIONS, SERVEGEN, SYNTHETIC)
}

HEAD_BYTES = 4096
"""As much of a file as its format is recognised by."""


def load_trace(
    path: Path, format: str = "", options: ReadOptions | None = None, *, lazy: bool = False
) -> Trace | ClosedTrace:
    """The trace at `path`; an empty `format` means the one its name and beginning show.

    Arrivals are sorted by time, stably, and recorded ones are timed from the first. With `lazy` nothing is read before it is walked to, again
    on each walk, and a file that is out of order is refused there.
    """
    options = options or ReadOptions()
    kind = _format(path, format)
    block_tokens = kind.block_tokens or options.block_tokens
    if isinstance(kind, SessionFormat):
        sessions = Replayed(lambda: _any_session(path, kind.read(path, options)))
        return ClosedTrace(path.name, block_tokens, sessions if lazy else tuple(sessions))
    remarks: Counter[str] = Counter()

    def walk() -> Iterator[Arrival]:
        remarks.clear()
        return kind.read(path, options, remarks)

    if lazy:
        arrivals = Replayed(lambda: _in_order(path, walk(), kind.own_clock))
        return Trace(path.name, block_tokens, arrivals, remarks)
    ordered = sorted(walk(), key=lambda arrival: arrival.at_s)
    return Trace(path.name, block_tokens, tuple(_in_order(path, ordered, kind.own_clock)), remarks)


def _format(path: Path, name: str) -> Format:
    known = ", ".join(FORMATS)
    if name:
        if name not in FORMATS:
            raise TraceError(str(path), 0, "", f"unknown format {name!r}; there are {known}")
        return FORMATS[name]
    head = "" if path.is_dir() else _head(path)
    for kind in FORMATS.values():
        if kind.recognises(path, head):
            return kind
    raise TraceError(str(path), 0, "", f"of no known format; name one of {known}")


def _head(path: Path) -> str:
    with opened(path) as file:
        return file.read(HEAD_BYTES).decode(errors="replace")


def _in_order(path: Path, arrivals: Iterable[Arrival], own_clock: bool) -> Iterator[Arrival]:
    """The arrivals, timed from the first one unless they have a clock of their own."""
    start_s, last_s = (0.0 if own_clock else None), -math.inf
    for arrival in arrivals:
        if start_s is None:
            start_s = arrival.at_s
        if arrival.at_s < last_s:
            reason = f"a request at {arrival.at_s} s follows one at {last_s} s; sort the file, or load it whole"
            raise TraceError(str(path), 0, "", reason)
        last_s = arrival.at_s
        yield replace(arrival, at_s=arrival.at_s - start_s) if start_s else arrival
    if last_s < 0:
        raise TraceError(str(path), 0, "", "holds no request")


def _any_session(path: Path, sessions: Iterator[ClosedSession]) -> Iterator[ClosedSession]:
    first = next(sessions, None)
    if first is None:
        raise TraceError(str(path), 0, "", "holds no session")
    yield first
    yield from sessions
