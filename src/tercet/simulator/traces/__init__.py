"""Workloads: readers of public traces, generators, and what can be done with both before they are replayed."""

from tercet.simulator.traces.arrival import Arrival, ClosedSession, ClosedTrace, Spawn, Trace, Turn
from tercet.simulator.traces.format import ReadOptions
from tercet.simulator.traces.loader import FORMATS, load_trace
from tercet.simulator.traces.spread import spread, spread_sessions
from tercet.simulator.traces.statistics import arrival_statistics, length_statistics
from tercet.simulator.traces.synthetic import Workload, generated
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
    "Workload",
    "arrival_statistics",
    "generated",
    "head",
    "head_sessions",
    "length_statistics",
    "load_trace",
    "overlay_hot_prefix",
    "regroup",
    "regroup_sessions",
    "scale_rate",
    "spread",
    "spread_sessions",
    "window",
]
