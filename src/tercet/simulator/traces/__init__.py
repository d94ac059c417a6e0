"""Workloads: readers of public traces, generators, and what can be done with both before they are replayed."""

from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Spawn, Trace, Turn
from tercet.simulator.traces.format import ReadOptions
from tercet.simulator.traces.loader import FORMATS, load_trace
from tercet.simulator.traces.spread import spread
from tercet.simulator.traces.transformations import (
    head,
    head_sessions,
    overlay_hot_prefix,
    regroup,
    regroup_sessions,
    scale_rate,
    window,
)

__all__ = [
    "FORMATS",
    "Arrival",
    "ClosedSession",
    "ClosedTrace",
    "ReadOptions",
    "Spawn",
    "Trace",
    "Turn",
    "head",
    "head_sessions",
    "load_trace",
    "overlay_hot_prefix",
    "regroup",
    "regroup_sessions",
    "scale_rate",
    "spread",
    "window",
]
