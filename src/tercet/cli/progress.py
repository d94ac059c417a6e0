"""A bar for simulations that take their time."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from tercet.simulator.simulation import Watch
from tercet.simulator.traces import ClosedTrace, Trace


@contextmanager
def watched(trace: Trace | ClosedTrace) -> Iterator[Watch]:
    """A bar on stderr while it lasts; without a length where counting would mean reading the trace."""
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.completed:,.0f} requests, at {task.fields[at_s]:,.0f} s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=_requests(trace), at_s=0.0)
        yield lambda ended, now_s: progress.update(task, completed=ended, at_s=now_s)


def _requests(trace: Trace | ClosedTrace) -> int | None:
    if isinstance(trace, ClosedTrace):
        sessions = trace.sessions
        return sum(len(s.turns) for s in sessions) if isinstance(sessions, tuple) else None
    return len(trace.arrivals) if isinstance(trace.arrivals, tuple) else None
