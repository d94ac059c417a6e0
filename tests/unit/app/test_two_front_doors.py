"""Two front doors and the toy workers they share, over real links: one finds what the other has sent."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tercet.config import ClusterConfig, EngineConfig, LinkConfig, ModelConfig, TransferConfig
from tercet.ids import FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.front_door import FrontDoor
from tercet.router.record import RequestRecord
from tercet.wire import Endpoint, Membership
from tercet.workers.runner import Runner
from tercet.workers.toy_runner import ToyRunner
from tercet.workers.worker import Worker

CONFIG = ClusterConfig(
    model=ModelConfig(path="/nowhere"),
    engine=EngineConfig(block_tokens=16, kv_blocks=256),
    link=LinkConfig(heartbeat_s=0.1, dead_after_s=2.0, report_period_s=0.02),
    transfer=TransferConfig(backend="fake"),
)
PROMPT = [(7 * i) % 60 for i in range(1100)]


def toy(model: ModelConfig, engine: EngineConfig) -> Runner:
    return ToyRunner(engine)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens at the other end of a socket."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)


@asynccontextmanager
async def opened(name: str, endpoints: tuple[Endpoint, ...]) -> AsyncIterator[FrontDoor]:
    """A front door that has links to all workers."""
    door = FrontDoor(CONFIG, FrontDoorId(name))
    door.update(Membership(1, endpoints))
    await door.start()
    await until(lambda: all(seen.connected for seen in door.status().workers))
    yield door
    await door.stop()


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[list[Worker]]:
    names = [WorkerId(f"decode-{number}") for number in range(3)]
    built = [
        Worker(
            CONFIG, name, Role.DECODE, Incarnation("1"),
            host="127.0.0.1", run_dir=tmp_path, load_runner=toy,
        )
        for name in names
    ]  # fmt: skip
    for worker in built:
        await worker.start()
    yield built
    for worker in built:
        await worker.stop()


def endpoints_of(workers: list[Worker]) -> tuple[Endpoint, ...]:
    return tuple(worker.endpoint for worker in workers if worker.endpoint is not None)


async def serve(door: FrontDoor, name: str, prompt: list[int]) -> RequestRecord:
    spec = RequestSpec(RequestId(name), prompt, Sampling(max_tokens=4, ignore_eos=True))
    async with door.generate(spec) as generation:
        async for _ in generation:
            pass
    return generation.record


def thinks_cached(record: RequestRecord) -> dict[str, int]:
    """Tokens that the front door thought each candidate has cached."""
    return {each.worker: each.hit_tokens for each in record.choices[-1].candidates}


def front_doors(workers: list[Worker]) -> list[int]:
    return [worker.status().load.front_doors for worker in workers]


async def test_a_conversation_goes_on_at_another_front_door_where_its_cache_is(
    workers: list[Worker],
) -> None:
    endpoints = endpoints_of(workers)
    async with opened("f", endpoints) as one, opened("g", endpoints) as other:
        await until(lambda: front_doors(workers) == [2, 2, 2])
        await asyncio.sleep(3 * CONFIG.link.report_period_s)  # both have been told so
        first = await serve(one, "first", PROMPT)
        await until(lambda: other.status().known_names == 2)
        await until(lambda: not any(seen.load_tokens for seen in other.status().workers))
        assert one.status().known_names == 0, "it knows by itself"
        second = await serve(other, "second", [*PROMPT, *range(50)])
    home = first.decode_worker
    assert home is not None
    assert second.decode_worker == home
    assert thinks_cached(second)[home] == 1024, "two granules of 512 tokens"
    assert second.cached_tokens == 1088, "all whole blocks"
    assert [worker.status().names_dropped for worker in workers] == [0, 0, 0]


async def test_a_front_door_that_is_alone_hears_nothing(workers: list[Worker]) -> None:
    async with opened("f", endpoints_of(workers)) as only:
        await until(lambda: front_doors(workers) == [1, 1, 1])
        await serve(only, "first", PROMPT)
        assert only.status().known_names == 0
    await until(lambda: front_doors(workers) == [0, 0, 0])
