"""How many requests a second a pool of prefill workers carries, by routing policy: on public traces, in `tercet simulate`.

Workers are ideal (`tercet.simulator.ideal_machine`): 20,000 tokens a second, one prompt at a time, first come first served,
a cache of full 512-token blocks; a request is in time when its first token comes within 5 s. cap90 and cap99 are the largest
rates at which 90 and 99 % are in time, to within 2.5 %. The ceiling is one queue for all workers and one endless cache.

Rivals route every request at once, as they do at home; `tercet` is DualMap with the queue at the door. With views that are
`age` old there are four front doors, and caches and loads are as old as the last report; rivals keep no account of what they
sent. `+ accounts` lends them ours. `own views` is `tercet` as it is in production, knowing what it sent itself and hears of the others.
"""

import heapq
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    SloConfig,
)
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.machine_model import IdealModel
from tercet.simulator.options import SimulationOptions
from tercet.simulator.simulation import simulate
from tercet.simulator.traces import (
    ClosedTrace,
    Trace,
    head_sessions,
    load_trace,
    overlay_hot_prefix,
    regroup_sessions,
    scale_rate,
    spread,
    spread_sessions,
)

TOKENS_PER_S = 20_000.0
BLOCK_TOKENS = 512
SLO_S = 5.0
TOLERANCE = 1.025
NEVER_S = 1e9
NETWORK_S = 0.0005


@dataclass(frozen=True)
class Contender:
    """A policy with its options, and whether requests wait at the door or are sent at once."""

    name: str
    policy: str
    options: dict[str, float] = field(default_factory=dict)
    queues: bool = False
    accounts: bool = False
    own_views: bool = False


RIVALS = (
    Contender("round robin", "round_robin"),
    Contender("least pending", "least_pending"),
    Contender("bounded hash, 2 blocks", "bounded_hash", {"key_tokens": 1024}),
    Contender(
        "cache aware .3/64/1.5",
        "cache_aware",
        {"match_share_min": 0.3, "uneven_requests": 64, "uneven_ratio": 1.5},
    ),
    Contender("max match", "cache_aware", {"match_share_min": 0, "uneven_requests": 10**9}),
    Contender("KV cost", "kv_cost"),
    Contender("min TTFT", "min_ttft"),
    Contender("DualMap, paper", "dualmap", {"escape": 0, "switch_by_load": 1}),
    Contender("DualMap + escape", "dualmap"),
)
TERCET = Contender("tercet", "dualmap", queues=True, accounts=True)
OWN_VIEWS = replace(TERCET, name="tercet, own views", own_views=True)


@dataclass(frozen=True)
class Cell:
    """One situation."""

    trace: str
    workers: int
    cache_tokens: int
    age_s: float = 0.0
    """0: one front door that sees everything as it is; else four, whose views are so old."""


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


def traces(folder: Path) -> dict[str, Callable[[], Trace | ClosedTrace]]:
    """By name."""
    mooncake = folder / "mooncake"

    def conversation() -> Trace:
        return _open(load_trace(mooncake / "conversation_trace.jsonl"))

    def agentic() -> ClosedTrace:
        path = folder / "kvcachetester" / "agentic_conversations.jsonl.xz"
        trace = load_trace(path, lazy=True)
        assert isinstance(trace, ClosedTrace)
        return regroup_sessions(head_sessions(trace, 80), BLOCK_TOKENS)

    return {
        "conversation": lambda: spread(conversation(), 3.0),
        "conversation, bundled": conversation,
        "conversation + hot prefix": lambda: overlay_hot_prefix(spread(conversation(), 3.0)),
        "synthetic": lambda: load_trace(mooncake / "synthetic_trace.jsonl"),
        "ragpulse": lambda: load_trace(folder / "ragpulse" / "0_trace.jsonl"),
        "agentic": agentic,
    }


def _open(trace: Trace | ClosedTrace) -> Trace:
    assert isinstance(trace, Trace)
    return trace


def config_of(cell: Cell, contender: Contender) -> ClusterConfig:
    # Of the promise, the greater part may pass at the worker: measured, from 0.01 s up; less costs hits, more costs recalls.
    start_within_s = 0.7 * SLO_S if contender.queues else NEVER_S
    return ClusterConfig(
        model=ModelConfig(path="none"),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=cell.workers)),
        engine=EngineConfig(
            block_tokens=BLOCK_TOKENS,
            kv_blocks=cell.cache_tokens // BLOCK_TOKENS,
            start_within_s=start_within_s,
        ),
        router=RouterConfig(
            policy=contender.policy,
            policy_options=contender.options,
            prefix_index_blocks_max=2**20,
        ),
        slo=SloConfig(ttft_ms=1e3 * SLO_S),
        front_door=FrontDoorConfig(in_flight_max=10**9, queue_max=10**9, queue_wait_s_max=NEVER_S),
    )


def options_of(cell: Cell, contender: Contender) -> SimulationOptions:
    exact = not cell.age_s
    told = Knowledge.EXACT if exact else Knowledge.SNAPSHOT
    return SimulationOptions(
        model=IdealModel(TOKENS_PER_S),
        front_doors=1 if exact else 4,
        report_age_s=cell.age_s,
        knowledge=Knowledge.OWN if contender.own_views else told,
        accounts=exact or contender.accounts,
        network_s=0.0 if exact else NETWORK_S,
    )


class Load:
    """One trace at any rate. A closed loop has none of its own: its sessions begin at one."""

    def __init__(self, trace: Trace | ClosedTrace) -> None:
        self._trace = trace

    @property
    def natural(self) -> float:
        """Requests a second as published; of a closed loop, sessions."""
        if isinstance(self._trace, ClosedTrace):
            return 1.0
        arrivals = self._trace.arrivals
        return len(arrivals) / (arrivals[-1].at_s - arrivals[0].at_s)

    def at(self, rate: float) -> Trace | ClosedTrace:
        if isinstance(self._trace, ClosedTrace):
            return spread_sessions(self._trace, rate, 0)
        return scale_rate(self._trace, rate / self.natural)


class Prober:
    """Runs a contender at rates, each once."""

    def __init__(self, cell: Cell, contender: Contender, load: Load) -> None:
        self._cell, self._contender, self._load = cell, contender, load
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
            results.slo_attainment,
            results.hit_rate,
            (ttft.p50 or math.inf, ttft.p90 or math.inf, ttft.p99 or math.inf),
            results.load_cv,
            results.refusals,
        )


def capacity(in_time: Callable[[float], float], share: float, grid: Sequence[float]) -> float:
    """The largest rate of the grid at which that share is in time, 0 if there is none; bisection, as if more were worse."""
    low, high = -1, len(grid)
    while high - low > 1:
        middle = (low + high) // 2
        if in_time(grid[middle]) >= share:
            low = middle
        else:
            high = middle
    return grid[low] if low >= 0 else 0.0


def grid_of(top: float) -> list[float]:
    """Rates from a fiftieth of `top` up, 2.5 % apart."""
    steps = math.ceil(math.log(50) / math.log(TOLERANCE))
    return [top * TOLERANCE ** (n - steps) for n in range(steps + 1)]


def ceiling(cell: Cell, load: Load, share: float, grid: Sequence[float]) -> float:
    """What no policy can beat: whoever is free takes the next in line, and everything computed before is cached for all."""
    trace = load.at(load.natural)
    if isinstance(trace, ClosedTrace):
        return 0.0
    seen: set[int] = set()
    work = []
    for arrival in trace.arrivals:
        hit = next((n for n, x in enumerate(arrival.names) if x not in seen), len(arrival.names))
        seen.update(arrival.names)
        tokens = max(1, arrival.prompt_tokens - hit * BLOCK_TOKENS)
        work.append((arrival.at_s, tokens / TOKENS_PER_S))

    def in_time(rate: float) -> float:
        free_s = [0.0] * cell.workers
        count = 0
        for at_s, own_s in work:
            at_s *= load.natural / rate
            end_s = max(at_s, heapq.heappop(free_s)) + own_s
            heapq.heappush(free_s, end_s)
            count += end_s - at_s <= SLO_S
        return count / len(work)

    return capacity(in_time, share, grid)


def measure(cell: Cell, contender: Contender | None, folder: Path) -> Row:
    """`None` is the ceiling."""
    load = Load(traces(folder)[cell.trace]())
    grid = grid_of(_top(cell, load))
    if contender is None:
        caps = [ceiling(cell, load, share, grid) for share in (0.9, 0.99)]
        return Row(cell, "ceiling", *caps, Point(caps[1], 0.99, 0, (0, 0, 0), 0, 0))
    prober = Prober(cell, contender, load)
    caps = [capacity(lambda r: prober.probe(r).in_time, share, grid) for share in (0.99, 0.9)]
    at = prober.points.get(caps[0]) or prober.points[min(prober.points)]
    return Row(cell, contender.name, caps[1], caps[0], at)


def _top(cell: Cell, load: Load) -> float:
    """A rate that nobody reaches."""
    if isinstance(trace := load.at(load.natural), ClosedTrace):
        return 2.0 * cell.workers
    seen: set[int] = set()
    tokens = 0
    for arrival in trace.arrivals:
        tokens += arrival.prompt_tokens - BLOCK_TOKENS * sum(x in seen for x in arrival.names)
        seen.update(arrival.names)
    return 1.5 * cell.workers * TOKENS_PER_S / (tokens / len(trace.arrivals))


def plan(cells: Sequence[Cell], names: Sequence[str]) -> Iterator[tuple[Cell, Contender | None]]:
    for cell in cells:
        yield cell, None
        for contender in (*RIVALS, TERCET, *((OWN_VIEWS,) if cell.age_s else ())):
            if not names or contender.name in names:
                yield cell, contender


CELLS = (
    *(Cell("conversation", n, cache) for n in (8, 32) for cache in (500_000, 3_000_000)),
    *(Cell("synthetic", n, cache) for n in (8, 32) for cache in (500_000, 3_000_000)),
    *(Cell("conversation", 32, 3_000_000, age_s) for age_s in (0.5, 2.0)),
    Cell("conversation + hot prefix", 32, 3_000_000),
    Cell("conversation, bundled", 8, 3_000_000),
    Cell("ragpulse", 8, 500_000),
    Cell("agentic", 8, 3_000_000),
)


def show(rows: Sequence[Row]) -> None:
    for cell in dict.fromkeys(row.cell for row in rows):
        views = f"4 front doors, views {cell.age_s:g} s old" if cell.age_s else "exact views"
        table = Table(
            title=f"{cell.trace}, {cell.workers} workers, {cell.cache_tokens:,} tokens, {views}"
        )
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
            (row.cap99 for row in mine if not row.contender.startswith(("tercet", "ceiling"))),
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
                *(figures if row.contender != "ceiling" else ("", "", "")),
            )
        Console().print(table)


def run(
    folder: Path, cells: Sequence[Cell], names: Sequence[str], processes: int, out: Path | None
) -> list[Row]:
    """Rows in the order of the plan; `out` is written anew with each, for a run that is cut off."""
    rows: list[Row] = []
    with ProcessPoolExecutor(processes) as pool:
        tasks = plan(cells, names)
        futures = [pool.submit(measure, cell, contender, folder) for cell, contender in tasks]
        for future in track(futures, "simulating …"):
            rows.append(future.result())
            if out is not None:
                out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def load_rows(path: Path) -> list[Row]:
    """What an earlier run has written."""
    return msgspec.json.decode(path.read_bytes(), type=list[Row])
