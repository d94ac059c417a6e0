"""Workers and their places on a real Ray, without anything in them."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.actor import ActorClass
from ray.util.placement_group import placement_group_table

from tercet.cluster.placement import Bundle, shortage
from tercet.cluster.ray_places import reserve
from tercet.cluster.ray_runtime import RayRuntime
from tercet.cluster.ray_workers import RayFleet
from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Pools, Resources
from tercet.errors import PeerLost
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role

pytestmark = pytest.mark.slow

CPUS = 4.0
PLACED_S_MAX = 30.0
NOT_PLACED_S = 1.5
D0 = WorkerId("decode-0")


def worker_class() -> "ActorClass[Any]":
    """An actor that sits and answers; made in a function, so that it travels by value."""

    class Sitter:
        def __init__(self, config: bytes, worker: str, incarnation: str, run_dir: str) -> None:
            self.worker = worker

        async def stop(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    return ray.remote(Sitter)


@pytest.fixture(scope="module")
def cpus() -> Iterator[float]:
    """What our Ray has; it lives as long as the module's tests."""
    runtime = RayRuntime.start_local(CPUS)
    try:
        yield ray.cluster_resources()["CPU"]
    finally:
        killed = runtime.stop()
    assert killed == []


@pytest.fixture
def fleet(cpus: float) -> Callable[..., RayFleet]:
    """A fleet whose decode workers reserve this and want these labels."""

    def make(resources: Resources, labels: dict[str, str] | None = None) -> RayFleet:
        decode = PoolConfig(resources=resources, labels=labels or {})
        config = ClusterConfig(model=ModelConfig(path="m"), pools=Pools(decode=decode))
        return RayFleet(config, worker_class(), Path("/nowhere"))

    return make


def groups() -> dict[str, dict[str, Any]]:
    """The placement groups there are, by the worker and incarnation in their names."""
    table = placement_group_table().values()
    return {g["name"].split(":", 2)[2]: g for g in table if g["state"] != "REMOVED"}


async def placed(*workers: Any) -> None:
    async with asyncio.timeout(PLACED_S_MAX):
        await asyncio.gather(*(worker.placed() for worker in workers))


@pytest.fixture(autouse=True)
def no_group_is_left(cpus: float) -> Iterator[None]:
    yield
    assert groups() == {}


async def test_a_worker_sits_in_a_group_of_its_own_until_it_is_killed(fleet):
    workers = fleet(Resources(cpus=0.5))
    first = workers.start(D0, Role.DECODE, Incarnation("a"))
    second = workers.start(WorkerId("decode-1"), Role.DECODE, Incarnation("b"))
    await placed(first, second)
    assert sorted(groups()) == ["decode-0:a", "decode-1:b"]
    group = groups()["decode-0:a"]
    assert group["state"] == "CREATED"
    assert group["strategy"] == "STRICT_PACK"
    assert group["bundles"] == {0: {"CPU": 0.5}}
    first.kill()
    assert sorted(groups()) == ["decode-1:b"]
    second.kill()


async def test_a_worker_that_reserves_nothing_has_a_place_all_the_same(fleet):
    worker = fleet(Resources(cpus=0)).start(D0, Role.DECODE, Incarnation("a"))
    await placed(worker)
    worker.kill()


async def test_a_worker_that_died_keeps_its_place_until_it_is_killed_and_then_the_next_has_it(
    fleet, cpus
):
    workers = fleet(Resources(cpus=cpus))
    dead = workers.start(D0, Role.DECODE, Incarnation("a"))
    await placed(dead)
    with pytest.raises(PeerLost):
        await dead.stop()
    assert sorted(groups()) == ["decode-0:a"]
    dead.kill()
    heir = workers.start(D0, Role.DECODE, Incarnation("b"))
    assert sorted(groups()) == ["decode-0:b"]
    await placed(heir)
    heir.kill()


async def test_a_worker_without_a_place_waits_and_leaves_nothing_when_it_is_given_up(fleet, cpus):
    resources = Resources(cpus=2 * cpus)
    workers = fleet(resources)
    worker = workers.start(D0, Role.DECODE, Incarnation("a"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NOT_PLACED_S):
            await worker.placed()
    assert groups()["decode-0:a"]["state"] == "PENDING"
    missing = shortage(Bundle.of(PoolConfig(resources=resources)), await workers.room())
    assert missing == f"no node of 1 can hold it; the nearest lacks CPU {cpus:g} of {2 * cpus:g}"
    worker.kill()
    assert await workers.found() == []


async def test_labels_say_which_node_may_hold_a_worker(fleet):
    node = ray.get_runtime_context().get_node_id()
    here = fleet(Resources(cpus=0.5), {"ray.io/node-id": f"in(other,{node})"})
    inside = here.start(D0, Role.DECODE, Incarnation("a"))
    await placed(inside)
    inside.kill()
    elsewhere = fleet(Resources(cpus=0.5), {"ray.io/node-id": f"!{node}"})
    outside = elsewhere.start(D0, Role.DECODE, Incarnation("b"))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(NOT_PLACED_S):
            await outside.placed()
    outside.kill()


async def test_whoever_finds_a_worker_can_free_its_place(fleet):
    workers = fleet(Resources(cpus=0.5))
    await placed(workers.start(D0, Role.DECODE, Incarnation("a")))
    (lodger,) = await fleet(Resources(cpus=0.5)).found()
    assert (lodger.worker, lodger.incarnation) == (D0, "a")
    lodger.process.kill()


async def test_a_place_whose_worker_is_gone_or_never_came_is_freed_when_workers_are_looked_for(
    fleet,
):
    workers = fleet(Resources(cpus=0.5))
    died = workers.start(D0, Role.DECODE, Incarnation("a"))
    await placed(died)
    with pytest.raises(PeerLost):
        await died.stop()
    reserve("tercet-worker:tercet:decode-1:b", Bundle({"CPU": 0.5}, {}))
    assert sorted(groups()) == ["decode-0:a", "decode-1:b"]
    assert await workers.found() == []
