"""What is reported of runs: figures of each, their spread over repetitions, and a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from replay import Reply


@dataclass(frozen=True, slots=True)
class Run:
    """One side, once."""

    side: str
    answered: int
    errors: int
    first_error: str
    hit_rate: float
    """Cached tokens of all prompt tokens."""
    ttft_ms_mean: float
    ttft_ms_p50: float
    ttft_ms_p90: float
    ttft_ms_p99: float
    per_worker: list[int]
    late_ms_p99: float
    """How late the client sent its requests."""
    idle_before: float
    """Share of the machine that nobody used just before."""
    more: Mapping[str, object]


def run_of(
    side: str,
    replies: Sequence[Reply],
    per_worker: list[int],
    idle_before: float,
    more: Mapping[str, object],
    stretch: float,
) -> Run:
    """The figures of one run, in the time of an unstretched one; all zero when nothing was answered."""
    good = [reply for reply in replies if not reply.error]
    bad = [reply for reply in replies if reply.error]
    ttft_ms = [1e3 * reply.ttft_s / stretch for reply in good] or [0.0]
    return Run(
        side=side,
        answered=len(good),
        errors=len(bad),
        first_error=bad[0].error if bad else "",
        hit_rate=sum(r.cached_tokens for r in good) / max(1, sum(r.prompt_tokens for r in good)),
        ttft_ms_mean=statistics.fmean(ttft_ms),
        ttft_ms_p50=quantile(ttft_ms, 0.5),
        ttft_ms_p90=quantile(ttft_ms, 0.9),
        ttft_ms_p99=quantile(ttft_ms, 0.99),
        per_worker=per_worker,
        late_ms_p99=quantile([1e3 * reply.late_s / stretch for reply in replies], 0.99),
        idle_before=idle_before,
        more=more,
    )


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def show(runs: Sequence[Run], title: str) -> None:
    """One row a side: means over its runs, with the lowest and the highest where there are several."""
    table = Table(title=title)
    columns = (
        "side",
        "runs",
        "hit %",
        "TTFT ms mean",
        "p50",
        "p99",
        "per worker",
        "errors",
        "late",
        "idle",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "side" else "right", no_wrap=True)
    for side in dict.fromkeys(run.side for run in runs):
        own = [run for run in runs if run.side == side]
        table.add_row(
            side,
            str(len(own)),
            _spread([100 * run.hit_rate for run in own], 1),
            _spread([run.ttft_ms_mean for run in own]),
            _spread([run.ttft_ms_p50 for run in own]),
            _spread([run.ttft_ms_p99 for run in own]),
            "/".join(map(str, own[-1].per_worker)),
            str(sum(run.errors for run in own)),
            f"{max(run.late_ms_p99 for run in own):.0f}",
            f"{min(run.idle_before for run in own):.0%}",
        )
    Console(width=180).print(table)


def _spread(values: Sequence[float], digits: int = 0) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f}-{max(values):.{digits}f})"
