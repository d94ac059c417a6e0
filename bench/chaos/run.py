"""Chaos on a real cluster: two prefill and three decode workers on this machine, and somebody who kills, hangs, drains and moves.

python bench/chaos/run.py [--minutes 15] [--trace FILE] [--concurrent 8] [--seed 0] [--json FILE]

First every request is sent once while nothing disturbs: its answer is the truth from then on. Then the same requests are sent
at random for so many minutes while workers are killed (SIGKILL), hung (SIGSTOP for 0.2 to 8 s), drained, and the controller
is killed; while running requests are moved, and a tenth of the clients leaves amid the answer. No client is to see an error,
no token may differ, and nothing may be left anywhere in the end.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from jobs import jobs_of, trace_of
from load import Crowd, Tally
from rich.console import Console
from rich.table import Table

from faults import PERIOD_S, Adversary, Happened
from tercet.app import Cluster, launch
from tercet.cluster.status import ClusterStatus
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    RouterConfig,
    TransferConfig,
)

BLOCK_TOKENS = 16
PROMPT_TOKENS_MAX = 1200
JOBS = 150
OUTPUT_SCALE = 0.25
LEAVE_SHARE = 0.1
SETTLE_S = 120.0

console = Console()


@dataclass(frozen=True)
class Outcome:
    """Everything that a run has found."""

    calm: Tally
    pressed: Tally
    happened: Happened
    kept: dict[str, dict[str, int]]

    @property
    def clean(self) -> bool:
        return not (self.pressed.errors or self.pressed.mismatches or self.kept)


def config_of(model: Path) -> ClusterConfig:
    light = Resources(cpus=0.1)
    return ClusterConfig(
        name="chaos",
        model=ModelConfig(path=str(model), name="demo"),
        engine=EngineConfig(kv_blocks=1024, block_tokens=BLOCK_TOKENS, threads=1),
        pools=Pools(
            prefill=PoolConfig(replicas=2, resources=light),
            decode=PoolConfig(replicas=3, resources=light),
        ),
        router=RouterConfig(replays_max=10),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(
            http_port=0, grpc_port=0, cpus=0.1, queue_wait_s_max=90.0, queue_max=1024
        ),
    )


async def run(cluster: Cluster, grpc: str, arguments: argparse.Namespace) -> Outcome:
    jobs = jobs_of(
        trace_of(arguments.trace),
        JOBS,
        block_tokens=BLOCK_TOKENS,
        prompt_tokens_max=PROMPT_TOKENS_MAX,
        output_scale=OUTPUT_SCALE,
    )
    crowd = Crowd(grpc, jobs, arguments.concurrent, arguments.seed)
    console.log(f"calm: {len(jobs)} requests")
    calm = await crowd.learn()
    if calm.errors:
        raise SystemExit(f"errors without any chaos: {calm.errors[:3]}")
    until_s = time.monotonic() + 60 * arguments.minutes
    console.log(f"chaos: {arguments.minutes:g} minutes, a fault every {PERIOD_S:g} s")
    adversary = Adversary(cluster, crowd.running, arguments.seed)
    pressed, happened, _ = await asyncio.gather(
        crowd.press(until_s, LEAVE_SHARE), adversary.disturb(until_s), tell(adversary, until_s)
    )
    console.log("waiting until everything is at rest")
    return Outcome(calm, pressed, happened, await asyncio.to_thread(at_rest, cluster))


async def tell(adversary: Adversary, until_s: float) -> None:
    """How far it is, now and then."""
    while (left_s := until_s - time.monotonic()) > 0:
        await asyncio.sleep(min(30.0, left_s))
        faults = ", ".join(f"{n} {name}" for name, n in adversary.happened.faults.items())
        console.log(f"{max(0.0, until_s - time.monotonic()):.0f} s left; {faults}")


def at_rest(cluster: Cluster) -> dict[str, dict[str, int]]:
    """What is still held by anybody when there was time enough to let go."""
    deadline_s = time.monotonic() + SETTLE_S
    while (kept := kept_by(cluster.controller.status())) and time.monotonic() < deadline_s:
        time.sleep(0.5)
    return kept


def kept_by(status: ClusterStatus) -> dict[str, dict[str, int]]:
    everything: dict[str, dict[str, int]] = {}
    for report in status.workers:
        worker = report.figures.worker if report.figures is not None else None
        if worker is None:
            everything[report.worker] = {"not up": 1}
            continue
        load = worker.load
        everything[report.worker] = {
            "blocks": load.blocks_used,
            "leases": load.leases,
            "quarantined": load.quarantined_blocks,
            "requests": load.waiting + load.running + load.holding + load.pulling,
            "moves": worker.departures + worker.arrivals,
        }
    for door in status.front_doors:
        everything[door.front_door] = {"in flight": door.in_flight, "queued": door.queued}
    kept = {
        name: {what: n for what, n in counts.items() if n} for name, counts in everything.items()
    }
    return {name: counts for name, counts in kept.items() if counts}


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


def latencies(tally: Tally) -> dict[str, float]:
    figures = (("TTFT", tally.ttft_s), ("ITL", tally.itl_s), ("total", tally.total_s))
    return {
        f"{name} p{round(100 * q)} ms": round(1e3 * quantile(values, q), 1)
        for name, values in figures
        for q in (0.5, 0.99)
    }


def summary(outcome: Outcome) -> dict[str, object]:
    """For machines."""
    pressed, calm = outcome.pressed, outcome.calm
    return {
        "requests": pressed.requests,
        "tokens": pressed.tokens,
        "cancelled": pressed.cancelled,
        "faults": dict(outcome.happened.faults),
        "refused": dict(outcome.happened.refused),
        "client_errors": len(pressed.errors),
        "token_mismatches": len(pressed.mismatches),
        "leaks": outcome.kept,
        "latency": {"calm": latencies(calm), "chaos": latencies(pressed)},
        "errors": pressed.errors[:20],
        "mismatches": pressed.mismatches[:20],
        "story": outcome.happened.story,
    }


def show(found: dict[str, object]) -> None:
    table = Table(title="Chaos", show_header=False)
    for name in (
        "requests",
        "tokens",
        "cancelled",
        "faults",
        "refused",
        "client_errors",
        "token_mismatches",
        "leaks",
    ):
        table.add_row(name.replace("_", " "), str(found[name]))
    console.print(table)
    latency = found["latency"]
    assert isinstance(latency, dict)
    table = Table(title="Latency (ms)")
    for column in ("", "calm", "chaos"):
        table.add_column(column, justify="right")
    for name in latency["calm"]:
        table.add_row(name, str(latency["calm"][name]), str(latency["chaos"][name]))
    console.print(table)
    for what in ("errors", "mismatches"):
        for line in found[what]:  # type: ignore[attr-defined]
            console.print(f"{what}: {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--trace", type=Path, help="an open-loop trace; a made-up one by default")
    parser.add_argument("--concurrent", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=Path("deploy/demo-model"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with launch(config_of(arguments.model.resolve()), report=console.log) as cluster:
        status = cluster.wait_ready(console.log)
        outcome = asyncio.run(run(cluster, status.front_doors[0].grpc, arguments))
    found = summary(outcome)
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not outcome.clean)


if __name__ == "__main__":
    main()
