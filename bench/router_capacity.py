"""How many requests a second a pool of prefill workers carries, by routing policy: on public traces, in `tercet simulate`.

Workers are ideal (`tercet.simulator.ideal_machine`): 20,000 tokens a second, one prompt at a time, first come first served,
a cache of full 512-token blocks; a request is in time when its first token comes within 5 s. cap90 and cap99 are the largest
rates at which 90 and 99 % are in time, to within 2.5 %. The ceiling is one endless cache and one queue for all workers, first
come first served; whoever lets those wait who are late anyway may come a little above it.

Rivals route every request at once, as they do at home; `tercet` is DualMap with the queue at the door. With views that are
`age` old there are four front doors, and caches and loads are as old as the last report; rivals keep no account of what they
sent. `own views` is `tercet` as it is in production, knowing what it sent itself and hears of the others.

Agentic sessions are a closed loop whose starts and pauses come the faster the higher the rate. 1 % of their requests have
more than 5 s to compute by themselves: shares are of the others.
"""

import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from capacity_cells import (
    OWN_VIEWS,
    RIVALS,
    SLO_S,
    TERCET,
    TOKENS_PER_S,
    Cell,
    Contender,
    config_of,
    load_of,
    options_of,
)
from capacity_load import Load, capacity
from tercet.simulator.simulation import simulate

TOLERANCE = 1.025
CEILING = "ceiling"


@dataclass(frozen=True)
class Point:
    """One simulation."""

    rate: float
    in_time: float
    hit_rate: float
    ttft_s: tuple[float, float, float]
    load_cv: float
    refusals: int


@dataclass(frozen=True)
class Row:
    """A contender in a cell. `at` is the point at cap99, or the slowest one tried."""

    cell: Cell
    contender: str
    cap90: float
    cap99: float
    at: Point


class Prober:
    """Runs a contender at rates, each once."""

    def __init__(self, cell: Cell, contender: Contender, load: Load) -> None:
        self._cell, self._contender, self._load = cell, contender, load
        self._possible = load.possible(TOKENS_PER_S * SLO_S)
        self.points: dict[float, Point] = {}

    def probe(self, rate: float) -> Point:
        point = self.points.get(rate)
        if point is None:
            point = self.points[rate] = self._run(rate)
        return point

    def _run(self, rate: float) -> Point:
        results = simulate(
            config_of(self._cell, self._contender),
            self._load.at(rate),
            options_of(self._cell, self._contender),
        )
        ttft = results.ttft_s
        return Point(
            rate,
            results.slo_attainment / self._possible,
            results.hit_rate,
            (ttft.p50 or math.inf, ttft.p90 or math.inf, ttft.p99 or math.inf),
            results.load_cv,
            results.refusals,
        )


def grid_of(cell: Cell, load: Load) -> list[float]:
    """Rates 2.5 % apart, up to one that nobody reaches."""
    top = 1.5 * cell.workers * TOKENS_PER_S / load.mean_tokens()
    steps = math.ceil(math.log(50) / math.log(TOLERANCE))
    return [top * TOLERANCE ** (n - steps) for n in range(steps + 1)]


def measure(cell: Cell, contender: Contender | None, folder: Path) -> Row:
    """`None` is the ceiling."""
    load = load_of(cell, folder)
    grid, possible = grid_of(cell, load), load.possible(TOKENS_PER_S * SLO_S)

    def best(rate: float) -> float:
        return load.in_time(rate, cell.workers, TOKENS_PER_S, SLO_S) / possible

    bound = capacity(best, 0.99, grid, grid[-1] / 2)
    if contender is None:
        cap90 = capacity(best, 0.9, grid, bound)
        return Row(cell, CEILING, cap90, bound, Point(bound, best(bound), 0, (0, 0, 0), 0, 0))
    prober = Prober(cell, contender, load)

    def in_time(rate: float) -> float:
        return prober.probe(rate).in_time

    cap99 = capacity(in_time, 0.99, grid, contender.near * bound)
    cap90 = capacity(in_time, 0.9, grid, 1.05 * (cap99 or grid[0]))
    at = prober.points.get(cap99) or prober.points[min(prober.points)]
    return Row(cell, contender.name, cap90, cap99, at)


def plan(cells: Sequence[Cell], names: Sequence[str]) -> Iterator[tuple[Cell, Contender | None]]:
    for cell in cells:
        yield cell, None
        for contender in (*RIVALS, TERCET, *((OWN_VIEWS,) if cell.age_s else ())):
            if not names or contender.name in names:
                yield cell, contender


def show(rows: Sequence[Row]) -> None:
    for cell in dict.fromkeys(row.cell for row in rows):
        table = Table(title=str(cell))
        for column in (
            "policy",
            "cap90",
            "cap99",
            "of best",
            "hits",
            "TTFT p50 / p90 / p99 s",
            "load CV",
        ):
            table.add_column(column, justify="left" if column == "policy" else "right")
        mine = [row for row in rows if row.cell == cell]
        best = max(
            (row.cap99 for row in mine if not row.contender.startswith((TERCET.name, CEILING))),
            default=0,
        )
        for row in mine:
            ttft = " / ".join(f"{value:.2f}" for value in row.at.ttft_s)
            figures = (f"{row.at.hit_rate:.1%}", ttft, f"{row.at.load_cv:.2f}")
            table.add_row(
                row.contender,
                f"{row.cap90:.2f}",
                f"{row.cap99:.2f}",
                f"{row.cap99 / best:.2f}" if best else "",
                *(figures if row.contender != CEILING else ("", "", "")),
            )
        Console().print(table)


def run(
    folder: Path, cells: Sequence[Cell], names: Sequence[str], processes: int, out: Path | None
) -> list[Row]:
    """In the order of the plan. `out` is written anew with each row, and rows that it has already are not measured again."""
    rows = {(row.cell, row.contender): row for row in load_rows(out)} if out is not None else {}
    todo = [
        (cell, contender)
        for cell, contender in plan(cells, names)
        if (cell, contender.name if contender else CEILING) not in rows
    ]
    with ProcessPoolExecutor(processes) as pool:
        futures = [pool.submit(measure, cell, contender, folder) for cell, contender in todo]
        for future in track(as_completed(futures), "simulating …", len(futures)):
            row = future.result()
            rows[row.cell, row.contender] = row
            if out is not None:
                out.write_text(
                    json.dumps([asdict(each) for each in rows.values()], indent=1) + "\n"
                )
    return list(rows.values())


def load_rows(path: Path) -> list[Row]:
    """What earlier runs have written."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row]) if path.exists() else []
