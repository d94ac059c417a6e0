"""How fast `tercet simulate` is: requests of a trace that one core simulates in a minute, and the memory that takes.

Mooncake's conversation trace, six times as fast as recorded, on 32 engines: all alike, and with a prefill pool of 14. With
`--large N` also N requests of a made-up chat on 1,000 engines. Each run has a process of its own. Seconds are those in which
the process computed; beside them stands how long a loop of plain Python took before and after, which shows what the core was
worth: on a machine that others use, compare only *normalised* rates, those of a core that runs the loop in 60 ms.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
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
from tercet.simulator import SimulationOptions, simulate
from tercet.simulator.traces import Trace, head, load_trace, scale_rate, spread
from tercet.simulator.traces.format import ReadOptions
from tercet.simulator.traces.lengths import Empirical, Lognormal
from tercet.simulator.traces.synthetic import Client, SystemPrompts, Workload, generated

BLOCK_TOKENS = 512
CACHE_BLOCKS = 976
"""Half a million tokens."""
RATE_SCALE = 6.0
LOOP_STEPS = 1_000_000
QUIET_LOOP_S = 0.06
"""On a core of ours that does nothing else."""
LARGE_WORKERS = 1000
LARGE_STARTS_PER_S = 667.0
"""Conversations of three turns on average: 2,000 requests a second."""


@dataclass(frozen=True)
class Layout:
    """Workers; without prefill workers all do everything."""

    prefill: int
    decode: int

    def __str__(self) -> str:
        return f"{self.prefill} prefill, {self.decode} decode" if self.prefill else "all alike"


@dataclass(frozen=True)
class Row:
    """One run."""

    trace: str
    layout: str
    workers: int
    requests: int
    cpu_s: float
    wall_s: float
    loop_s: float
    requests_per_min: float
    """A core, by the seconds in which it computed."""
    normalised_per_min: float
    memory_mib: int
    """Of the whole process, at most."""
    slo_attainment: float
    simulated_s: float


def config_of(layout: Layout) -> ClusterConfig:
    return ClusterConfig(
        model=ModelConfig(path="none"),
        pools=Pools(
            prefill=PoolConfig(replicas=layout.prefill), decode=PoolConfig(replicas=layout.decode)
        ),
        engine=EngineConfig(
            block_tokens=BLOCK_TOKENS,
            kv_blocks=CACHE_BLOCKS,
            step_tokens_max=8192,
            running_max=256,
        ),
        router=RouterConfig(prefix_index_blocks_max=1_000_000),
        slo=SloConfig(ttft_ms=5000.0),
        front_door=FrontDoorConfig(in_flight_max=1_000_000, queue_max=100_000),
    )


def recorded(path: Path) -> Trace:
    """Arrivals are recorded in steps of 3 s; they are spread over these."""
    return scale_rate(spread(load_trace(path), 3.0), RATE_SCALE)


def made_up(requests: int) -> Trace:
    """A chat whose conversations begin with one of 200 system prompts; drawn while it is replayed."""
    chat = Client(
        name="chat",
        starts_per_s=LARGE_STARTS_PER_S,
        input=Lognormal(p50=300, p99=3000),
        output=Lognormal(p50=200, p99=800),
        turns=Empirical([1, 3, 8], [5.0, 3.0, 2.0]),
        system=SystemPrompts(count=200, tokens=2048),
    )
    # Conversations that have begun go on for minutes: twice the time that as many starts would take.
    options = ReadOptions(block_tokens=BLOCK_TOKENS, seed=0, span_s=60 + requests / 1000)
    return head(generated(Workload(clients=[chat]), options, "made-up chat"), requests)


def loop_s() -> float:
    """What the core is worth just now."""
    began_s, table = time.process_time(), {}
    for step in range(LOOP_STEPS):
        table[step & 1023] = step
    return time.process_time() - began_s


def measure(layout: Layout, make: Callable[[], Trace]) -> Row:
    trace, progress = make(), Console(stderr=True)

    def watch(ended: int, at_s: float) -> None:
        if ended % 102_400 == 0:
            progress.print(f"{ended:,} requests, {time.process_time() - began_s:.0f} s of CPU")

    before_s, began_s, wall_began_s = loop_s(), time.process_time(), time.monotonic()
    results = simulate(config_of(layout), trace, SimulationOptions(), watch)
    cpu_s, wall_s = time.process_time() - began_s, time.monotonic() - wall_began_s
    core_s = statistics.mean((before_s, loop_s()))
    per_min = results.requests / cpu_s * 60
    return Row(
        trace=trace.name,
        layout=str(layout),
        workers=layout.prefill + layout.decode,
        requests=results.requests,
        cpu_s=round(cpu_s, 2),
        wall_s=round(wall_s, 2),
        loop_s=round(core_s, 4),
        requests_per_min=round(per_min),
        normalised_per_min=round(per_min * core_s / QUIET_LOOP_S),
        memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        slo_attainment=results.slo_attainment,
        simulated_s=results.duration_s,
    )


def alone(layout: Layout, make: Callable[[], Trace]) -> Row:
    """In a process that does nothing before or after."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        return pool.submit(measure, layout, make).result()


def table_of(rows: Sequence[Row]) -> Table:
    table = Table("trace", "layout", title="Simulated requests")
    for column in (
        "workers",
        "requests",
        "CPU s",
        "loop ms",
        "a minute and core",
        "normalised",
        "MiB",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.trace,
            row.layout,
            f"{row.workers:,}",
            f"{row.requests:,}",
            f"{row.cpu_s:.1f}",
            f"{row.loop_s * 1e3:.0f}",
            f"{row.requests_per_min:,}",
            f"{row.normalised_per_min:,}",
            f"{row.memory_mib:,}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trace", type=Path, help="Mooncake's conversation_trace.jsonl")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each; the median is kept")
    parser.add_argument("--large", type=int, default=0, help="requests on 1,000 workers")
    parser.add_argument("--json", type=Path, help="write the rows there")
    arguments = parser.parse_args()
    rows: list[Row] = []
    if arguments.trace is not None:
        make = partial(recorded, arguments.trace)
        for layout in (Layout(0, 32), Layout(14, 18)):
            runs = [alone(layout, make) for _ in range(arguments.rounds)]
            runs.sort(key=lambda row: row.normalised_per_min)
            rows.append(runs[len(runs) // 2])
    if arguments.large:
        rows.append(alone(Layout(0, LARGE_WORKERS), partial(made_up, arguments.large)))
    Console(width=140).print(table_of(rows))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
