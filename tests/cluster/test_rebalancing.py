"""Requests that crowd on one of two decode workers spread by themselves, and no client notices."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import msgspec
import pytest

from tercet.app import launch
from tercet.client import AsyncClient
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    MigrationConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    TransferConfig,
)
from tercet.ids import WorkerId
from tercet.router.explanation import Explanation
from tercet.router.record import RequestRecord
from tercet.router.relocation import Relocation

D0, D1 = WorkerId("decode-0"), WorkerId("decode-1")
REQUESTS = 6
MAX_TOKENS = 500
PROMPT = [40 + 7 * position % 360 for position in range(300)]

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


class Reference(Protocol):
    def __call__(
        self, prompt: list[int], max_tokens: int, *, temperature: float, seed: int
    ) -> list[int]: ...


@pytest.fixture(scope="module")
def targets(demo_model: Path) -> Iterator[tuple[str, str]]:
    """gRPC and HTTP addresses of a cluster in which six requests are too many for one worker beside an idle one."""
    light = Resources(cpus=0.1)
    config = ClusterConfig(
        name="rebalancing",
        model=ModelConfig(path=str(demo_model), name="demo"),
        engine=EngineConfig(kv_blocks=1024),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=2, resources=light)),
        transfer=TransferConfig(net_devices="lo"),
        link=LinkConfig(report_period_s=0.1),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
        migration=MigrationConfig(period_s=0.3, low_steps=4000.0, high_steps=6000.0, dwell_s=0.5),
    )
    with launch(config) as running:
        status = running.wait_ready(lambda _: None)
        yield status.front_doors[0].grpc, running.http
    assert running.killed == [], "processes that did not end by themselves"


async def answer(client: AsyncClient, number: int, begun: asyncio.Event) -> list[int]:
    got: list[int] = []
    options = {"temperature": 0.0, "ignore_eos": True, "request_id": f"r{number}"}
    async with client.stream(token_ids=PROMPT, max_tokens=MAX_TOKENS, **options) as stream:
        async for delta in stream:
            got += delta.token_ids
            begun.set()
    return got


async def record(client: AsyncClient, number: int) -> RequestRecord:
    text = await client.explain(f"r{number}")
    [known] = msgspec.json.decode(text, type=Explanation).requests
    return known


async def crowd_at_d0(grpc: str) -> tuple[list[list[int]], list[RequestRecord]]:
    """Answers and records of requests that all were moved to one worker when they had begun."""
    async with AsyncClient(grpc, timeout_s=120.0) as client:
        begun = [asyncio.Event() for _ in range(REQUESTS)]
        asked = [
            asyncio.create_task(answer(client, number, event)) for number, event in enumerate(begun)
        ]
        await asyncio.gather(*(event.wait() for event in begun))
        for number in range(REQUESTS):
            text = await client.move(f"r{number}", D0)
            assert msgspec.json.decode(text, type=Relocation).is_known
        answers = await asyncio.gather(*asked)
        return answers, [await record(client, number) for number in range(REQUESTS)]


def test_what_crowds_on_one_worker_spreads_and_every_answer_is_the_right_one(
    targets: tuple[str, str], reference: Reference
) -> None:
    expected = reference(PROMPT, MAX_TOKENS, temperature=0.0, seed=0)
    answers, records = asyncio.run(crowd_at_d0(targets[0]))
    assert answers == [expected] * REQUESTS
    assert sum(one.replays for one in records) == 0
    moves = [move for one in records for move in one.moves if not move.reason]
    assert (D0, D1) in {(move.source, move.destination) for move in moves}, records
    assert len(moves) < 3 * REQUESTS, "they move to and fro"
    workers = httpx.get(f"http://{targets[1]}/tercet/status", timeout=10).json()["workers"]
    assert [seen["outstanding"] for seen in workers] == [0, 0]
