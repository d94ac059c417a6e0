"""From a path to a trace: finds the format, reads the file, puts the arrivals in order."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tercet.errors import TraceError
from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Trace
from tercet.simulator.traces.azure import AZURE
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions, SessionFormat
from tercet.simulator.traces.lines import opened
from tercet.simulator.traces.mooncake import MOONCAKE
from tercet.simulator.traces.replayed import Replayed

Format = ArrivalFormat | SessionFormat

FORMATS: Mapping[str, Format] = {kind.name: kind for kind in (MOONCAKE, AZURE)}

HEAD_BYTES = 4096
"""As much of a file as its format is recognised by."""


def load_trace(
    path: Path, format: str = "", options: ReadOptions | None = None, *, lazy: bool = False
) -> Trace | ClosedTrace:
    """The trace at `path`; an empty `format` means the one its name and beginning show.

    Arrivals are sorted by time, stably, and the first one is at 0. With `lazy` nothing is read before it is walked to, again
    on each walk, and a file that is out of order is refused there.
    """
    options = options or ReadOptions()
    kind = _format(path, format)
    block_tokens = kind.block_tokens or options.block_tokens
    if isinstance(kind, SessionFormat):
        sessions = Replayed(lambda: _any_session(path, kind.read(path, options)))
        return ClosedTrace(path.name, block_tokens, sessions if lazy else tuple(sessions))
    left_out: Counter[str] = Counter()

    def walk() -> Iterator[Arrival]:
        left_out.clear()
        return kind.read(path, options, left_out)

    if lazy:
        arrivals = Replayed(lambda: _from_zero(path, walk()))
        return Trace(path.name, block_tokens, arrivals, left_out)
    ordered = sorted(walk(), key=lambda arrival: arrival.at_s)
    return Trace(path.name, block_tokens, tuple(_from_zero(path, ordered)), left_out)


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


def _from_zero(path: Path, arrivals: Iterable[Arrival]) -> Iterator[Arrival]:
    start_s, last_s = math.nan, -math.inf
    for arrival in arrivals:
        if math.isnan(start_s):
            start_s = arrival.at_s
        if arrival.at_s < last_s:
            reason = f"a request at {arrival.at_s} s follows one at {last_s} s; sort the file, or load it whole"
            raise TraceError(str(path), 0, "", reason)
        last_s = arrival.at_s
        yield arrival if start_s == 0 else replace(arrival, at_s=arrival.at_s - start_s)
    if math.isnan(start_s):
        raise TraceError(str(path), 0, "", "holds no request")


def _any_session(path: Path, sessions: Iterator[ClosedSession]) -> Iterator[ClosedSession]:
    first = next(sessions, None)
    if first is None:
        raise TraceError(str(path), 0, "", "holds no session")
    yield first
    yield from sessions
