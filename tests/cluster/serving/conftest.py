"""The demo model on one prefill and two decode workers behind a front door, all real, for the tests of this folder."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tercet.app import Cluster, launch
from tercet.cluster.run_record import RunBook
from tercet.cluster.status import WorkerFigures, WorkerReport
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

IDLE_TIMEOUT_S = 60.0
BACK_TIMEOUT_S = 180.0
SILENT = {"does not answer": 1}
"""On a busy machine a worker may be too late for one look; it is asked again."""


@dataclass(frozen=True)
class WorkerLife:
    worker: str
    incarnation: str
    pid: int


class ServingCluster:
    """What a test may do with the cluster."""

    def __init__(self, cluster: Cluster, grpc: str) -> None:
        self._cluster = cluster
        self.http_url = f"http://{cluster.http}"
        self.grpc = grpc

    def worker(self, name: str) -> WorkerLife:
        deadline_s = time.monotonic() + IDLE_TIMEOUT_S
        while True:
            report = next(report for report in self._reports() if report.worker == name)
            if report.figures is not None:
                return WorkerLife(report.worker, report.incarnation, report.figures.pid)
            assert time.monotonic() < deadline_s, f"{name} is {report.phase} and does not answer"
            time.sleep(0.2)

    def wait_until_back(self, former: WorkerLife) -> WorkerLife:
        """The next life of a worker, once everybody knows it."""
        deadline_s = time.monotonic() + BACK_TIMEOUT_S
        while time.monotonic() < deadline_s:
            status = self._cluster.controller.status()
            lives = {report.worker: report.incarnation for report in status.workers}
            if status.ready and lives[former.worker] != former.incarnation:
                return self.worker(former.worker)
            time.sleep(0.2)
        raise AssertionError(f"{former.worker} is not back: {self._cluster.controller.status()}")

    def scale(self, decode: int) -> None:
        """Have so many decode workers, and wait until they are there and the others gone."""
        self._cluster.controller.scale(None, decode)
        deadline_s = time.monotonic() + BACK_TIMEOUT_S
        while time.monotonic() < deadline_s:
            status = self._cluster.controller.status()
            if status.ready and len(status.workers) == decode + 1:
                return
            time.sleep(0.2)
        raise AssertionError(f"not {decode} decode workers: {self._cluster.controller.status()}")

    def story(self) -> list[str]:
        """What has happened to workers."""
        return self._cluster.controller.status().story

    def records(self, limit: int = 1000) -> list[dict[str, Any]]:
        """The last requests, newest first."""
        answer = httpx.get(f"{self.http_url}/tercet/requests", params={"limit": limit})
        records: list[dict[str, Any]] = answer.raise_for_status().json()
        return records

    def note(self, run_dir: Path) -> None:
        """Let the command line find the cluster by this directory."""
        RunBook(run_dir).write(self._cluster.record(ready=True))

    def assert_empty(self) -> None:
        """No worker keeps a block, lease, departure, arrival or request; no front door keeps a place."""
        deadline_s = time.monotonic() + IDLE_TIMEOUT_S
        while (kept := self._kept()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
        assert not kept, f"left behind: {kept}"

    def _reports(self) -> list[WorkerReport]:
        return self._cluster.controller.status().workers

    def _kept(self) -> dict[str, dict[str, int]]:
        status = self._cluster.controller.status()
        everything: dict[str, dict[str, int]] = {
            report.worker: _counts(report.figures.worker)
            if report.figures is not None and report.figures.worker is not None
            else SILENT
            for report in status.workers
        }
        for door in status.front_doors:
            everything[door.front_door] = {"in_flight": door.in_flight, "queued": door.queued}
        return {
            name: {what: count for what, count in counts.items() if count}
            for name, counts in everything.items()
            if any(counts.values())
        }


def _counts(figures: WorkerFigures) -> dict[str, int]:
    load = figures.load
    return {
        "blocks": load.blocks_used,
        "leases": load.leases,
        "quarantined": load.quarantined_blocks,
        "waiting": load.waiting,
        "running": load.running,
        "holding": load.holding,
        "pulling": load.pulling,
        "departures": figures.departures,
        "arrivals": figures.arrivals,
    }


@pytest.fixture(scope="package")
def cluster(demo_model: Path) -> Iterator[ServingCluster]:
    light = Resources(cpus=0.1)
    config = ClusterConfig(
        name="serving",
        model=ModelConfig(path=str(demo_model), name="demo"),
        engine=EngineConfig(kv_blocks=1024),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=2, resources=light),
        ),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
    )
    with launch(config) as running:
        status = running.wait_ready(lambda _: None)
        yield ServingCluster(running, status.front_doors[0].grpc)
    assert running.killed == [], "processes that did not end by themselves"


@pytest.fixture(scope="module")
def decode(demo_model: Path) -> Callable[[list[int]], str]:
    """Tokens to text by the tokenizers library alone."""
    tokenizer = Tokenizer.from_file(str(demo_model / "tokenizer.json"))

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    return text
