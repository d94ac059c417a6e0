"""What a simulation found, as tables for people."""

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tercet.cli.plain_table import plain_table
from tercet.simulator.results import Quantiles, Results, Setup

ATTAINED, BARELY = 0.99, 0.9
"""Shares of kept promises that are shown as good, and as tolerable."""


def results_tables(results: Results) -> list[RenderableType]:
    """What `tercet simulate` prints, top to bottom."""
    return [head(results.setup), _latencies(results), _figures(results), _pace(results)]


def head(setup: Setup) -> Text:
    """What was simulated, in a line."""
    pools = (("prefill", setup.prefill_workers), ("decode", setup.decode_workers))
    workers = " and ".join(f"{count} {role}" for role, count in pools if count)
    return Text.assemble(
        (setup.trace, "bold"), " by ", (setup.policy, "bold"), f" on {workers} workers"
    )


def figures_of(results: Results) -> Iterator[tuple[str, str]]:
    """Names and figures, besides latencies."""
    yield "requests", f"{results.requests:,}"
    yield "failed", f"{results.failed:,}"
    yield "rejected", f"{results.rejected:,}"
    yield "promises kept", f"{results.slo_attainment:.2%}"
    yield "prompt tokens cached", f"{results.hit_rate:.2%}"
    yield "longest queue", f"{results.queued_max:,}"
    yield "refusals, replays", f"{results.refusals:,}, {results.replays:,}"
    yield "load's coefficient of variation", f"{results.load_cv:.3f}"
    yield "GPU hours", f"{results.gpu_hours:.2f}"
    yield "simulated", f"{results.duration_s:,.0f} s"


def latencies_of(results: Results) -> Iterator[tuple[str, Quantiles, float | None]]:
    """Names, quantiles, and what was promised, in seconds."""
    yield "first token", results.ttft_s, results.setup.slo_ttft_s
    yield "between tokens", results.itl_s, results.setup.slo_itl_s
    yield "longest pause", results.pause_s, None


def duration(seconds: float | None) -> str:
    """With three digits, in a unit that suits it."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:,.0f} s"


def _latencies(results: Results) -> Table:
    table = plain_table("", "", numbers=("p50", "p90", "p99", "promised"))
    for name, quantiles, promised_s in latencies_of(results):
        times_s = (quantiles.p50, quantiles.p90, quantiles.p99, promised_s)
        table.add_row(name, *map(duration, times_s))
    return table


def _figures(results: Results) -> Table:
    share = results.slo_attainment
    colour = "green" if share >= ATTAINED else "yellow" if share >= BARELY else "red"
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, figure in figures_of(results):
        table.add_row(name, Text(figure, colour if name == "promises kept" else ""))
    return table


def _pace(results: Results) -> Text:
    pace = results.pace
    return Text(f"\nin {pace.wall_s:.1f} s: {pace.requests_per_min:,.0f} requests a minute", "dim")
