"""Claim: making a decode pool smaller while it serves costs no request, no token, and a short pause each.

    python bench/scale_downs.py [--count 100] [--clients 20] [--tokens 160]

A cluster with one prefill and two decode workers on this machine serves clients that ask without end; `--count` times the second
decode worker is drained away and a new one is started. Every answer is compared with what the same cluster says undisturbed.
Prints a table and writes bench/results/scale_downs.json; exit code 1 if anything was lost, wrong or begun anew.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from tercet.app import Cluster, launch
from tercet.client import AsyncClient
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
    TransferConfig,
)
from tercet.errors import TercetError, Unavailable
from tercet.router.explanation import Explanation
from tercet.router.record import RequestRecord

HERE = Path(__file__).parent
RESULT = HERE / "results" / "scale_downs.json"
MODEL = HERE.parent / "deploy" / "demo-model"
PROMPTS = 5
POLL_S = 0.1
WAIT_S_MAX = 300.0

console = Console()


@dataclass(frozen=True, slots=True)
class Figures:
    """All that happened."""

    scale_downs: int
    answers: int
    errors: int
    wrong: int
    replays: int
    moves: int
    moves_declined: int
    stopped_with_requests: int
    """Workers that were not empty after `control.drain_timeout_s`."""
    itl_ms_p50: float
    """Of the requests' mean times between two tokens: what a stall is to be compared with."""
    stall_ms_p50: float
    stall_ms_p99: float
    stall_ms_max: float
    drain_s_p50: float
    drain_s_max: float

    @property
    def is_clean(self) -> bool:
        return not (self.errors or self.wrong or self.replays or self.stopped_with_requests)


def cluster_config() -> ClusterConfig:
    light = Resources(cpus=0.1)
    return ClusterConfig(
        name="scale-downs",
        model=ModelConfig(path=str(MODEL), name="demo"),
        engine=EngineConfig(kv_blocks=1024),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=2, resources=light),
        ),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
    )


def prompt(number: int) -> list[int]:
    return [40 + (number * 31 + 7 * position) % 360 for position in range(60 + 40 * number)]


@dataclass
class Crowd:
    """Clients that stream one answer after the other, and what came of it."""

    grpc: str
    tokens: int
    expected: list[list[int]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    records: list[RequestRecord] = field(default_factory=list)
    stopping: bool = False

    async def rehearse(self) -> None:
        """Learn what each answer is when nothing happens."""
        async with AsyncClient(self.grpc) as client:
            for number in range(PROMPTS):
                self.expected.append((await self._answer(client, number))[1])

    async def ask(self, client: AsyncClient, number: int) -> None:
        """Until told to stop."""
        which = number % PROMPTS
        while not self.stopping:
            try:
                request, got = await self._answer(client, which)
            except TercetError as exc:
                self.outcomes["error"] += 1
                console.log(f"client {number}: {exc!r}")
                continue
            self.outcomes["answer" if got == self.expected[which] else "wrong"] += 1
            known = msgspec.json.decode(await client.explain(request), type=Explanation)
            self.records += known.requests

    async def _answer(self, client: AsyncClient, which: int) -> tuple[str, list[int]]:
        options = {"temperature": 0.7 * (which % 2), "seed": which, "ignore_eos": True}
        got: list[int] = []
        async with client.stream(
            token_ids=prompt(which), max_tokens=self.tokens, **options
        ) as stream:
            async for delta in stream:
                got += delta.token_ids
        assert stream.request_id is not None, "a delta has come"
        return stream.request_id, got


def breathe(cluster: Cluster) -> float:
    """One decode worker less, then one more; returns the seconds until the first was gone."""
    controller = cluster.controller
    begun_s = time.monotonic()
    controller.scale(None, 1)
    until(cluster, lambda status: len(status.workers) == 2)
    gone_s = time.monotonic() - begun_s
    controller.scale(None, 2)
    until(cluster, lambda status: len(status.workers) == 3 and status.ready)
    return gone_s


def until(cluster: Cluster, holds: Callable[[ClusterStatus], bool]) -> None:
    """Wait, also while a machine that does too much keeps the controller from answering; raises TimeoutError in the end."""
    give_up_s = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < give_up_s:
        with contextlib.suppress(Unavailable):
            if holds(cluster.controller.status()):
                return
        time.sleep(POLL_S)
    raise TimeoutError(f"the cluster did not get there within {WAIT_S_MAX:g} s")


async def measure(cluster: Cluster, grpc: str, count: int, clients: int, tokens: int) -> Figures:
    crowd, drains, stopped = Crowd(grpc, tokens), [], set()
    await crowd.rehearse()
    async with AsyncClient(grpc) as client, asyncio.TaskGroup() as group:
        for number in range(clients):
            group.create_task(crowd.ask(client, number))
        try:
            for number in range(count):
                drains.append(await asyncio.to_thread(breathe, cluster))
                story = (await asyncio.to_thread(cluster.controller.status)).story
                stopped |= {line for line in story if "stopped with" in line}
                console.log(
                    f"{number + 1} of {count}: gone in {drains[-1]:.1f} s, {dict(crowd.outcomes)}"
                )
        finally:
            crowd.stopping = True
    return summary(crowd, sorted(drains), len(stopped))


def summary(crowd: Crowd, drains: list[float], stopped: int) -> Figures:
    moves = [move for record in crowd.records for move in record.moves]
    stalls = sorted(move.stall_ms for move in moves if move.stall_ms is not None) or [0.0]
    itls = sorted(one.itl_ms for one in crowd.records if one.itl_ms is not None) or [0.0]
    return Figures(
        scale_downs=len(drains),
        answers=crowd.outcomes["answer"],
        errors=crowd.outcomes["error"],
        wrong=crowd.outcomes["wrong"],
        replays=sum(record.replays for record in crowd.records),
        moves=sum(not move.reason for move in moves),
        moves_declined=sum(bool(move.reason) for move in moves),
        stopped_with_requests=stopped,
        itl_ms_p50=round(itls[len(itls) // 2], 1),
        stall_ms_p50=round(stalls[len(stalls) // 2], 1),
        stall_ms_p99=round(stalls[len(stalls) * 99 // 100], 1),
        stall_ms_max=round(stalls[-1], 1),
        drain_s_p50=round(drains[len(drains) // 2], 1),
        drain_s_max=round(drains[-1], 1),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=160)
    asked = parser.parse_args()
    with launch(cluster_config(), report=console.log) as cluster:
        grpc = cluster.wait_ready(console.log).front_doors[0].grpc
        figures = asyncio.run(measure(cluster, grpc, asked.count, asked.clients, asked.tokens))
    table = Table("what", "figure", title="Decode workers drained away under load")
    for name, value in asdict(figures).items():
        table.add_row(name.replace("_", " "), f"{value:g}")
    console.print(table)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"clients": asked.clients, **asdict(figures)}, indent=2) + "\n")
    return 0 if figures.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
