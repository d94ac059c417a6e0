"""Workers on hosts of their own; the test itself, as their front door, stands at the switch between them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import msgspec
import pytest
import pytest_asyncio
from moves.stage import Place, Stage, WorkerProcess, small_cluster
from netlab.lab import Host, Lab
from netlab.namespaces import lacking

from tercet.config import ClusterConfig
from tercet.request import RequestSpec
from tercet.role import Role

STEP_S = 0.01
HEAD_DIM = 64
"""Blocks of 16 KiB: a prompt of 1200 tokens is a second on a cable of 10 Mbit/s."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := lacking():
        pytest.skip(reason)
    with Lab() as lab:
        yield lab


def patient_cluster() -> ClusterConfig:
    """Deadlines that fit slow cables; UCX chooses its network card, as it would on real hosts."""
    config = small_cluster()
    link = msgspec.structs.replace(config.link, heartbeat_s=0.25, dead_after_s=1.5)
    transfer = msgspec.structs.replace(
        config.transfer, net_devices="", expected_bytes_per_s=0.8e6, lease_s=4.0
    )
    return msgspec.structs.replace(config, link=link, transfer=transfer)


@dataclass
class Seat:
    """A worker and the host it runs on."""

    host: Host
    worker: WorkerProcess


@dataclass
class Hall:
    """The stage, and three seats on it: two on good cables, one on a `Wire`."""

    stage: Stage
    source: Seat
    near: Seat
    far: Seat
    _requests: int = 0

    def request(self, prompt_tokens: int = 300, max_tokens: int = 12) -> RequestSpec:
        """One whose prompt nobody has seen before."""
        self._requests += 1
        return self.stage.request("r" * self._requests, prompt_tokens, max_tokens)

    async def idle(self, *seats: Seat) -> None:
        await asyncio.gather(*(seat.worker.idle() for seat in seats))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hall(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hall]:
    stage = Stage(tmp_path_factory.mktemp("run"), patient_cluster())
    stage.head_dim = HEAD_DIM

    async def seat(name: str, role: Role, host: Host, step_s: float = 0.0) -> Seat:
        stage.places[name] = Place(host.address, host.entrance)
        return Seat(host, await stage.start(name, role, step_s))

    try:
        yield Hall(
            stage,
            *await asyncio.gather(
                seat("p0", Role.PREFILL, lab.boot("a"), STEP_S),
                seat("d0", Role.DECODE, lab.boot("b")),
                seat("d1", Role.DECODE, lab.boot("c", wire=True)),
            ),
        )
        await stage.end()
    finally:
        for host in lab.hosts.values():
            host.end()
        await stage.clear()
