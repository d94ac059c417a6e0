"""A whole cluster on three hosts goes on serving when one of them is cut off, freezes or dies: every client gets its answer."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from netlab.lab import Host, Lab
from netlab.ray_hosts import RayHosts

pytestmark = [pytest.mark.slow, pytest.mark.netlab, pytest.mark.timeout(900)]

CLIENTS = 40
MAX_TOKENS = 160
AMID = CLIENTS * 10
"""So many pieces have come when it happens."""
PATIENCE_S = 180.0


@pytest.fixture(scope="module")
def hosts(
    lab: Lab, demo_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayHosts]:
    hosts = RayHosts(lab, tmp_path_factory.mktemp("ray"))
    try:
        hosts.start(demo_model)
        yield hosts
        hosts.end()
    finally:
        for host in lab.hosts.values():
            host.end()
        hosts.reap()


class Crowd:
    """Clients that stream, one prompt each, and know the true answer from a time when nothing happened."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/completions"
        self._heard = 0
        self._amid = asyncio.Event()

    async def ask(self) -> list[str]:
        """All at once; their answers."""
        self._heard = 0
        self._amid.clear()
        limits = httpx.Limits(max_connections=CLIENTS)
        async with httpx.AsyncClient(timeout=PATIENCE_S, limits=limits) as client:
            return await asyncio.gather(*(self._answer(client, i) for i in range(CLIENTS)))

    async def until_amid(self) -> None:
        """Waits until answers are under way."""
        await self._amid.wait()

    async def _answer(self, client: httpx.AsyncClient, number: int) -> str:
        said = ""
        async for piece in self._pieces(client, number):
            said += piece
            self._heard += 1
            if self._heard == AMID:
                self._amid.set()
        return said

    async def _pieces(self, client: httpx.AsyncClient, number: int) -> AsyncIterator[str]:
        prompt = f"Question {number}: " + f"what is {number} and {number + 1}? " * (number % 8 + 1)
        body = {
            "model": "demo", "prompt": prompt, "max_tokens": MAX_TOKENS, "ignore_eos": True,
            "temperature": 0.8 if number % 2 else 0, "seed": number, "stream": True,
        }  # fmt: skip
        ended = False
        async with client.stream("POST", self._url, json=body) as reply:
            assert reply.status_code == 200, await reply.aread()
            async for line in reply.aiter_lines():
                if line == "data: [DONE]":
                    ended = True
                elif line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    assert "error" not in message, message
                    yield "".join(choice["text"] for choice in message["choices"])
        assert ended, "the stream broke off"


async def cut(hosts: RayHosts, host: Host) -> None:
    host.cut()
    await asyncio.sleep(5)
    host.mend()


async def freeze(hosts: RayHosts, host: Host) -> None:
    host.freeze()
    await asyncio.sleep(6)
    host.thaw()


async def kill(hosts: RayHosts, host: Host) -> None:
    host.end()
    hosts.workers.remove(host)
    await asyncio.to_thread(hosts.add, f"{host.name}2")


@pytest.mark.parametrize("fault", [cut, freeze, kill])
async def test_no_client_notices_what_happens_to_a_host(hosts, fault):
    crowd = Crowd(hosts.http)
    truth = await crowd.ask()
    assert len(set(truth)) == CLIENTS
    status = await asyncio.to_thread(hosts.until, lambda status: status.ready)
    addresses = {each.worker: each.address.rpartition(":")[0] for each in status.workers}
    answers = asyncio.create_task(crowd.ask())
    await crowd.until_amid()
    decoding = Counter(record["decode_worker"] for record in await records(hosts))
    victim = addresses[decoding.most_common(1)[0][0]]
    await fault(hosts, next(host for host in hosts.workers if host.address == victim))
    assert await answers == truth
    touched = [record for record in await records(hosts) if record["replays"]]
    assert touched, "nobody was on that host"
    pause_s = max(record["itl_ms_max"] for record in touched) / 1000
    print(f"{fault.__name__}: {len(touched)} replayed, longest pause {pause_s:.1f} s")
    await asyncio.to_thread(hosts.until, is_empty)
    assert await crowd.ask() == truth


async def records(hosts) -> list[dict]:
    """What the front door remembers of the last requests, one a client."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        asked = await client.get(f"{hosts.http}/tercet/requests", params={"limit": CLIENTS})
    return list(asked.json())


def is_empty(status) -> bool:
    """Nothing is kept for anybody, anywhere."""
    figures = [worker.figures and worker.figures.worker for worker in status.workers]
    return status.ready and all(
        each
        and not each.left
        and not each.load.blocks_used + each.load.quarantined_blocks + each.load.leases
        for each in figures
    )
