"""Does the simulator tell the truth? One short trace on a real cluster on this machine and in `tercet simulate`, side by side.

The real one has every part: Ray, front door, links, NIXL, engines on a random Llama. The simulated one is given what that
cluster's workers have fitted and reported: latency coefficients, bytes and speed of pulls; and one figure measured here, how
long an empty way through the front door takes. Compared are mean and p90 of the time to the first token and between tokens,
as front doors record them. Goal: within 15 %.

Prefill and decode workers share this machine's cores, so the load is kept low enough that they seldom compute together.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from checkpoint import llama
from tercet.app import Cluster, avoid_taken_ports, launch
from tercet.client import AsyncClient
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    SloConfig,
)
from tercet.latency import UNFITTED, Coefficients
from tercet.role import Role
from tercet.router.record import RequestRecord
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.options import SimulationOptions
from tercet.simulator.simulation import Simulation
from tercet.simulator.traces import Arrival, Trace
from tercet.wire import LoadFigures

BLOCK_TOKENS = 16
FAMILIES = 6
"""Prompts begin with one of so many texts."""
WARM_UP = 60
TOKEN_IDS = range(1, 250)


@dataclass(frozen=True)
class Figures:
    """Milliseconds."""

    ttft_mean: float
    ttft_p90: float
    itl_mean: float
    itl_p90: float

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> "Figures":
        ttft = sorted(r.ttft_ms for r in records if r.ttft_ms is not None)
        itl = sorted(r.itl_ms for r in records if r.itl_ms is not None)
        return cls(statistics.mean(ttft), _p90(ttft), statistics.mean(itl), _p90(itl))


@dataclass(frozen=True)
class Row:
    """One cluster."""

    prefill: int
    decode: int
    requests: int
    real: Figures
    simulated: Figures

    @property
    def errors(self) -> dict[str, float]:
        """Simulated against real, relative."""
        real, simulated = asdict(self.real), asdict(self.simulated)
        return {name: simulated[name] / value - 1 for name, value in real.items()}


@dataclass(frozen=True)
class Work:
    """A trace, and the tokens behind it."""

    trace: Trace
    prompts: tuple[list[int], ...]


def work(requests: int, per_s: float, seed: int) -> Work:
    """Prompts of 100 to 1,400 tokens with shared beginnings, 8 to 48 tokens of output, at random times."""
    dice = random.Random(seed)
    families = [dice.choices(TOKEN_IDS, k=dice.randrange(64, 512)) for _ in range(FAMILIES)]
    arrivals, prompts, at_s = [], [], 0.0
    for _ in range(requests):
        at_s += dice.expovariate(per_s)
        prompt = dice.choice(families) + dice.choices(TOKEN_IDS, k=dice.randrange(40, 900))
        prompts.append(prompt)
        arrivals.append(Arrival(at_s, len(prompt), dice.randrange(8, 48), _names(prompt)))
    return Work(Trace("fidelity", BLOCK_TOKENS, arrivals), tuple(prompts))


def _names(prompt: list[int]) -> tuple[int, ...]:
    ends = range(BLOCK_TOKENS, len(prompt) + 1, BLOCK_TOKENS)
    return tuple(hash(tuple(prompt[:end])) & (2**64 - 1) for end in ends)


def _p90(values: list[float]) -> float:
    return values[min(len(values) - 1, int(0.9 * len(values)))]


def config_of(checkpoint: Path, prefill: int, decode: int) -> ClusterConfig:
    return ClusterConfig(
        name="fidelity",
        model=ModelConfig(path=str(checkpoint), name="fidelity"),
        pools=Pools(prefill=PoolConfig(replicas=prefill), decode=PoolConfig(replicas=decode)),
        engine=EngineConfig(block_tokens=BLOCK_TOKENS, kv_blocks=2048),
        slo=SloConfig(ttft_ms=2000.0, itl_ms=100.0),
        router=RouterConfig(policy="dualmap"),
    )


# ---- the real side ---------------------------------------------------------------------------------------------------


async def replay(cluster: Cluster, grpc: str, job: Work) -> list[RequestRecord]:
    """Send everything at its time; the records of all, in the trace's order."""
    arrivals = job.trace.arrivals
    async with AsyncClient(grpc) as client, asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()

        async def one(number: int) -> str:
            await asyncio.sleep(begun_s + arrivals[number].at_s - loop.time())
            answer = await client.generate(
                token_ids=job.prompts[number],
                max_tokens=arrivals[number].output_tokens,
                ignore_eos=True,
                temperature=0.0,
            )
            return answer.request_id

        tasks = [group.create_task(one(number)) for number in range(len(arrivals))]
    names = [task.result() for task in tasks]
    async with httpx.AsyncClient(base_url=f"http://{cluster.http}") as http:
        replies = [await http.get(f"/tercet/requests/{name}") for name in names]
    return [msgspec.json.decode(reply.content, type=RequestRecord) for reply in replies]


def loads_of(cluster: Cluster) -> list[LoadFigures]:
    reports = cluster.controller.status().workers
    return [r.figures.worker.load for r in reports if r.figures and r.figures.worker]


def measured(loads: Sequence[LoadFigures], kv_bytes_per_token: int) -> EngineModel:
    """The mean of what the workers of each pool have fitted."""
    pulled = sum(load.pull_bytes for load in loads)
    pull_s = sum(load.pull_s for load in loads)
    return EngineModel(
        prefill=_mean([load.prefill_coefficients for load in loads if load.role is Role.PREFILL]),
        decode=_mean([load.decode_coefficients for load in loads if load.role is Role.DECODE]),
        kv_bytes_per_token=kv_bytes_per_token,
        bandwidth_bytes_per_s=pulled / pull_s if pull_s else 1e9,
        latency_s=3e-4,
    )


def _mean(fits: Sequence[Coefficients]) -> Coefficients:
    fitted = [fit for fit in fits if fit != UNFITTED]
    assert fitted, "no worker has fitted its steps: the warm-up was too short"
    first, second, third = (statistics.mean(fit[n] for fit in fitted) for n in range(3))
    return first, second, third


# ---- both ------------------------------------------------------------------------------------------------------------


def compare(checkpoint: Path, prefill: int, decode: int, requests: int, per_s: float) -> Row:
    config = avoid_taken_ports(config_of(checkpoint, prefill, decode))
    with launch(config, report=lambda text: None) as cluster:
        grpc = cluster.wait_ready(lambda text: None).front_doors[0].grpc
        asyncio.run(replay(cluster, grpc, work(WARM_UP, 2 * per_s, 1)))
        job = work(requests, per_s, 2)
        real = asyncio.run(replay(cluster, grpc, job))
        loads = loads_of(cluster)
    kv_bytes = next(load.block_bytes for load in loads if load.block_bytes) // BLOCK_TOKENS
    simulated = simulated_records(config, job.trace, measured(loads, kv_bytes))
    return Row(prefill, decode, requests, Figures.of(real), Figures.of(simulated))


def simulated_records(
    config: ClusterConfig, trace: Trace, model: EngineModel
) -> list[RequestRecord]:
    records: list[RequestRecord] = []
    options = SimulationOptions(
        model=model, report_age_s=config.link.report_period_s, network_s=5e-4
    )
    simulation = Simulation(config, trace, options, None)
    add = simulation.findings.add

    def note(arrival: Arrival, record: RequestRecord) -> None:
        records.append(record)
        add(arrival, record)

    simulation.findings.add = note  # type: ignore[method-assign]
    simulation.run()
    return records


def show(rows: Sequence[Row]) -> None:
    table = Table(title="a real cluster and the simulator, milliseconds")
    for column in ("cluster", "figure", "real", "simulated", "error"):
        table.add_column(column, justify="left" if column in ("cluster", "figure") else "right")
    for row in rows:
        simulated = asdict(row.simulated)
        for name, value in asdict(row.real).items():
            error = row.errors[name]
            table.add_row(
                f"{row.prefill}P + {row.decode}D",
                name,
                f"{value:.1f}",
                f"{simulated[name]:.1f}",
                f"[{'green' if abs(error) <= 0.15 else 'red'}]{error:+.0%}",
            )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--per-s", type=float, default=1.5)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = llama(Path(folder) / "model", hidden=256, layers=8)
        rows = [
            compare(checkpoint, prefill, 2, arguments.requests, arguments.per_s)
            for prefill in (1, 2)
        ]
    show(rows)
    if arguments.json:
        body = [{**asdict(row), "errors": row.errors} for row in rows]
        arguments.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
