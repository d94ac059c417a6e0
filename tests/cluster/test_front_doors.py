"""Two front doors of one real cluster: when one is killed, the other's streams go on, it gets the HTTP port for itself, and
nothing of the dead one is left.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tercet.app import Cluster, launch
from tercet.client import AsyncClient
from tercet.cluster.status import ClusterStatus
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    TransferConfig,
)
from tercet.errors import TercetError
from tercet.ids import FrontDoorId

pytestmark = pytest.mark.slow

STREAMS = 4
TOKENS = 400
BEGUN = 20
CONNECTIONS = 40
"""So many that each of two front doors on a port gets one: with one chance in 2**39 not."""
WAIT_S_MAX = 90.0


@pytest.fixture
def cluster(demo_model: Path) -> Iterator[Cluster]:
    light = Resources(cpus=0.1)
    config = ClusterConfig(
        name="doors",
        model=ModelConfig(path=str(demo_model), name="demo"),
        engine=EngineConfig(kv_blocks=1024),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=2, resources=light),
        ),
        transfer=TransferConfig(net_devices="lo"),
        front_door=FrontDoorConfig(replicas=2, http_port=0, grpc_port=0, cpus=0.1),
    )
    with launch(config) as running:
        yield running
    assert running.killed == [], "processes that did not end by themselves"


def until(cluster: Cluster, holds: Callable[[ClusterStatus], bool]) -> ClusterStatus:
    """The first status of which this holds."""
    deadline_s = time.monotonic() + WAIT_S_MAX
    while not holds(status := cluster.controller.status()):
        assert time.monotonic() < deadline_s, status
        time.sleep(0.1)
    return status


def is_whole(status: ClusterStatus) -> bool:
    return status.ready and len(status.front_doors) == 2


def is_idle(status: ClusterStatus) -> bool:
    """No worker has a block, a lease or anything else of a request."""
    figures = [report.figures and report.figures.worker for report in status.workers]
    return all(
        each is not None
        and not each.left
        and not (each.load.blocks_used or each.load.leases or each.load.quarantined_blocks)
        for each in figures
    )


async def heard(http: str) -> list[str]:
    """Who answers over HTTP, one name for each of many connections. Raises httpx.HTTPError when one is not answered."""
    names = []
    for _ in range(CONNECTIONS):
        async with httpx.AsyncClient(timeout=WAIT_S_MAX) as client:
            names.append((await client.get(f"http://{http}/tercet/status")).json()["front_door"])
    return names


def prompt_of(stream: int) -> list[int]:
    return [40 + stream, *range(50, 120)]


class Stream:
    """Tokens of one request as they come."""

    def __init__(self, client: AsyncClient, number: int) -> None:
        self.tokens: list[int] = []
        self._task = asyncio.create_task(self._read(client, number))

    async def end(self) -> list[int]:
        """All of them. Raises TercetError when the front door is lost."""
        await self._task
        return self.tokens

    async def begun(self) -> None:
        while len(self.tokens) < BEGUN:
            assert not self._task.done(), self._task
            await asyncio.sleep(0.01)

    async def _read(self, client: AsyncClient, number: int) -> None:
        stream = client.stream(
            token_ids=prompt_of(number), max_tokens=TOKENS, temperature=0.0, ignore_eos=True
        )
        async for delta in stream:
            self.tokens.extend(delta.token_ids)


async def lose_one(status: ClusterStatus, http: str) -> tuple[list[list[int]], int]:
    """Streams at both doors, the first of which is killed amid them: what the other's clients got, and how many had an error.

    Whoever comes afterwards over HTTP, to the same port, gets the other one.
    """
    doomed, other = status.front_doors
    async with AsyncClient(doomed.grpc) as losing, AsyncClient(other.grpc) as keeping:
        lost = [Stream(losing, number) for number in range(STREAMS)]
        kept = [Stream(keeping, number) for number in range(STREAMS)]
        async with asyncio.timeout(WAIT_S_MAX):
            for stream in (*lost, *kept):
                await stream.begun()
            os.kill(doomed.pid, signal.SIGKILL)
            ends = await asyncio.gather(*(each.end() for each in lost), return_exceptions=True)
            assert set(await heard(http)) == {other.front_door}
            outputs = [await each.end() for each in kept]
    return outputs, sum(isinstance(each, TercetError) for each in ends)


def test_a_front_door_that_is_killed_takes_nobody_elses_requests_along(cluster, reference):
    before = until(cluster, is_whole)
    doors = {door.front_door for door in before.front_doors}
    assert set(asyncio.run(heard(cluster.http))) == doors, "both have the port"
    outputs, errors = asyncio.run(lose_one(before, cluster.http))
    expected = [
        reference(prompt_of(number), TOKENS, temperature=0.0, seed=0) for number in range(STREAMS)
    ]
    assert outputs == expected
    assert errors == STREAMS, "whose front door has died must be told"
    until(cluster, is_idle)
    dead: FrontDoorId = before.front_doors[0].front_door
    after = until(
        cluster, lambda s: is_whole(s) and dead not in {door.front_door for door in s.front_doors}
    )
    assert set(asyncio.run(heard(cluster.http))) == {door.front_door for door in after.front_doors}
    assert [w.incarnation for w in after.workers] == [w.incarnation for w in before.workers]
