"""What a simulation found, as tables for people."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tercet.cli.plain_table import plain_table
from tercet.simulator.results import Results
from tercet.simulator.summary import duration, figures, latencies, title

ATTAINED, BARELY = 0.99, 0.9
"""Shares of kept promises that are shown as good, and as tolerable."""


def results_tables(results: Results) -> list[RenderableType]:
    """What `tercet simulate` prints, top to bottom."""
    head = Text(title(results.setup), "bold")
    return [head, _latencies(results), _figures(results), _pace(results)]


def _latencies(results: Results) -> Table:
    table = plain_table("", "", numbers=("p50", "p90", "p99", "promised"))
    for name, quantiles, promised_s in latencies(results):
        times_s = (quantiles.p50, quantiles.p90, quantiles.p99, promised_s)
        table.add_row(name, *map(duration, times_s))
    return table


def _figures(results: Results) -> Table:
    share = results.slo_attainment
    colour = "green" if share >= ATTAINED else "yellow" if share >= BARELY else "red"
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right")
    for name, figure in figures(results):
        table.add_row(name, Text(figure, colour if name == "promises kept" else ""))
    return table


def _pace(results: Results) -> Text:
    pace = results.pace
    return Text(f"\nin {pace.wall_s:.1f} s: {pace.requests_per_min:,.0f} requests a minute", "dim")
