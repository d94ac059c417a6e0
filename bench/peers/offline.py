"""Our policies beside Dynamo's KV router, both without sockets and clocks: reuse and time to first token on whole traces.

    python bench/peers/offline.py --traces conversation_trace.jsonl synthetic_trace.jsonl --peers FOLDER

Dynamo's figures come from its own offline replay, ours from an event loop around the real policies and the front door's
real prefix index, on workers made like Dynamo's (see machines.py). `round_robin` on both sides shows how alike they are:
the rest of a difference is the policies'. Writes bench/results/peers_offline.json.
"""

import argparse
import json
import random
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from figures import quantile
from machines import BLOCK_TOKENS, BlockCache, Job, Machine
from stage import Variant
from tercet.config import SloConfig
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.ledger import life_of
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, WorkerView
from tercet.router.pool import ListedPool
from tercet.router.prefix_index import PrefixIndex
from tercet.router.prefix_names import PrefixName, mix
from tercet.wire import Endpoint, LoadReport
from turns import Turn, turns

HERE = Path(__file__).parent
RESULT = HERE.parent / "results" / "peers_offline.json"
SIDES = ("dualmap", "prefix_affinity", "min_ttft", "kv_cost", "round_robin")
SPEEDUPS = (1.0, 3.0)
DYNAMO = "dy/bin/python"
INDEX_BLOCKS_MAX = 65536
LIFE = Incarnation("1")


@dataclass(frozen=True, slots=True)
class Row:
    """One policy on one trace at one speed."""

    trace: str
    speedup: float
    side: str
    requests: int
    hit_rate: float
    ttft_ms_mean: float
    ttft_ms_p50: float
    ttft_ms_p90: float
    ttft_ms_p99: float
    itl_ms_mean: float = 0.0
    """Zero on our side, which does not look at it."""
    version: str = ""


def view_of(endpoint: Endpoint, machine: Machine, hit_blocks: int) -> WorkerView:
    """As the front door sees an aggregated worker whose report is of this moment."""
    pending, contexts = machine.pending_tokens, machine.context_tokens
    report = LoadReport(
        Role.DECODE,
        waiting=len(machine.waiting),
        running=len(machine.running),
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending,
        context_tokens=contexts,
        blocks_total=machine.cache.blocks_max,
        blocks_used=machine.cache.used,
        prefill_coefficients=machine.model.prefill_coefficients,
        decode_coefficients=machine.model.decode_coefficients,
    )
    return WorkerView(
        endpoint,
        report,
        report_age_s=0.0,
        suspect=False,
        pending_tokens=pending,
        load_tokens=pending + contexts,
        outstanding=len(machine.waiting) + len(machine.running),
        hit_tokens=hit_blocks * BLOCK_TOKENS,
    )


def ours(
    variant: Variant, sequence: Sequence[Turn], workers: int, blocks: int, *, exact: bool
) -> list[Job]:
    """Every request served under one of our policies."""
    options = {name: float(value) for name, value in variant.options.items()}
    chooser = (
        POLICIES.options(variant.policy, options).aimed_at(SloConfig()).build(random.Random(1))
    )
    machines = {
        Endpoint(WorkerId(f"w{number}"), LIFE, Role.DECODE, "127.0.0.1", 1, "here"): Machine(
            BlockCache(blocks)
        )
        for number in range(workers)
    }
    index = PrefixIndex(INDEX_BLOCKS_MAX)
    for count, turn in enumerate(sequence):
        for machine in machines.values():
            machine.advance(turn.at_s)
        names = names_of(turn)
        ask = Ask(
            RequestId(f"r{count}"),
            turn.input_tokens,
            names=names,
            block_tokens=BLOCK_TOKENS,
            at_s=turn.at_s,
        )
        known = index.hits(names)
        views = [
            view_of(
                endpoint,
                machine,
                machine.cache.hit(names) if exact else known.get(life_of(endpoint), 0),
            )
            for endpoint, machine in machines.items()
        ]
        choice = chooser.choose(ask, ListedPool(views))
        assert choice is not None, ask
        endpoint = choice.view.endpoint
        index.record(life_of(endpoint), names)
        machines[endpoint].submit(Job(turn.at_s, turn.input_tokens, turn.output_tokens, names))
    for machine in machines.values():
        machine.advance(float("inf"))
    return [job for machine in machines.values() for job in machine.done]


def names_of(turn: Turn) -> list[PrefixName]:
    """Of its full blocks: the trace's names cover everything before a block already."""
    full = turn.input_tokens // BLOCK_TOKENS
    return [PrefixName(mix(block + 1)) for block in turn.blocks[:full]]


def row_of(trace: str, speedup: float, side: str, jobs: Sequence[Job]) -> Row:
    ttft_ms = [1e3 * (job.first_s - job.arrived_s) for job in jobs]
    return Row(
        trace=trace,
        speedup=speedup,
        side=side,
        requests=len(jobs),
        hit_rate=sum(job.cached_tokens for job in jobs) / sum(job.input_tokens for job in jobs),
        ttft_ms_mean=statistics.fmean(ttft_ms),
        ttft_ms_p50=quantile(ttft_ms, 0.5),
        ttft_ms_p90=quantile(ttft_ms, 0.9),
        ttft_ms_p99=quantile(ttft_ms, 0.99),
    )


def dynamo(python: Path, trace: Path, speedup: float, workers: int, blocks: int) -> list[Row]:
    """Dynamo's round robin and its KV router, in its own replay."""
    settings = {
        "trace": str(trace.absolute()),
        "speedup": speedup,
        "workers": workers,
        "blocks": blocks,
    }
    command = [str(python), str(HERE / "dynamo_replay.py"), json.dumps(settings)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines: list[Mapping[str, str | float]] = [
        json.loads(line) for line in printed.splitlines() if line.startswith("{")
    ]
    return [Row(trace=trace.name, speedup=speedup, **line) for line in lines]  # type: ignore[arg-type]


def show(rows: Sequence[Row]) -> None:
    table = Table(title="offline: reuse and time to first token in ms")
    for column in ("trace", "speed", "side", "hit %", "mean", "p50", "p90", "p99"):
        table.add_column(column, justify="left" if column in ("trace", "side") else "right")
    for row in rows:
        times = (row.ttft_ms_mean, row.ttft_ms_p50, row.ttft_ms_p90, row.ttft_ms_p99)
        table.add_row(
            row.trace.removesuffix(".jsonl"),
            f"{row.speedup:g}x",
            row.side,
            f"{row.hit_rate:.1%}",
            *(f"{time:.0f}" for time in times),
        )
    Console(width=120).print(table)


def compare(trace: Path, speedup: float, args: argparse.Namespace) -> Iterator[Row]:
    """Dynamo first, then ours."""
    if args.peers is not None and (args.peers / DYNAMO).exists():
        yield from dynamo(args.peers / DYNAMO, trace, speedup, args.workers, args.blocks)
    sequence = turns(trace, speedup=speedup)
    for name in args.policies:
        variant = Variant.parse(f"tercet:{name}")
        jobs = ours(variant, sequence, args.workers, args.blocks, exact=args.exact)
        yield row_of(trace.name, speedup, str(variant), jobs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--traces", type=Path, nargs="+", required=True)
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument("--policies", nargs="+", default=SIDES, metavar="POLICY[,OPTION=VALUE…]")
    parser.add_argument("--speedups", nargs="+", type=float, default=SPEEDUPS)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--blocks", type=int, default=2048)
    parser.add_argument("--exact", action="store_true", help="policies know caches exactly")
    parser.add_argument("--json", type=Path, default=RESULT)
    args = parser.parse_args()
    rows = [
        row
        for trace in args.traces
        for speedup in args.speedups
        for row in compare(trace, speedup, args)
    ]
    show(rows)
    if args.peers is None or not (args.peers / DYNAMO).exists():
        print(f"skipped dynamo: no {DYNAMO} in --peers")
    args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
