"""A cluster whose decode worker is two processes: its answers are transformers' own, also when one of the two is killed."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tercet.app import Cluster, launch
from tercet.client import AsyncClient
from tercet.cluster.process_tree import Process, descendants, survivors
from tercet.cluster.status import WorkerReport
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    RouterConfig,
    TransferConfig,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMPT = [40 + 7 * position % 400 for position in range(120)]
MAX_TOKENS = 60


@pytest.fixture
def cluster(demo_model: Path) -> Iterator[Cluster]:
    light = Resources(cpus=0.1)
    config = ClusterConfig(
        name="parallel",
        model=ModelConfig(path=str(demo_model), name="demo"),
        engine=EngineConfig(kv_blocks=256),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=1, resources=light, tensor_parallel=2),
        ),
        router=RouterConfig(local_prefill_tokens_max=16),
        transfer=TransferConfig(net_devices="lo", wait_s=10.0),
        # The only decode worker is lost and comes back: until then its request waits.
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1, queue_wait_s_max=120),
    )
    with launch(config) as running:
        yield running
    assert running.killed == [], "processes that did not end by themselves"


def decode_worker(cluster: Cluster) -> WorkerReport:
    (report,) = [w for w in cluster.controller.status().workers if w.worker == "decode-0"]
    return report


def follower(cluster: Cluster) -> Process:
    figures = decode_worker(cluster).figures
    assert figures is not None
    (found,) = [each for each in descendants(figures.pid) if "workers.parallel" in each.command]
    return found


async def answer(grpc: str, cluster: Cluster | None = None) -> list[int]:
    """The tokens; with a cluster, a process of its decode worker is killed when the sixth is here."""
    tokens: list[int] = []
    options = {"max_tokens": MAX_TOKENS, "temperature": 0.0, "ignore_eos": True}
    async with AsyncClient(grpc) as client, client.stream(token_ids=PROMPT, **options) as stream:
        async for delta in stream:
            tokens += delta.token_ids
            if cluster is not None and len(tokens) > 5:
                os.kill(follower(cluster).pid, signal.SIGKILL)
                cluster = None
    return tokens


def test_two_processes_decode_what_one_has_prefilled_and_a_killed_one_costs_no_token(
    cluster: Cluster, reference
) -> None:
    grpc = cluster.wait_ready(lambda _: None).front_doors[0].grpc
    expected = reference(PROMPT, MAX_TOKENS, temperature=0.0, seed=0)
    assert asyncio.run(answer(grpc)) == expected
    before = decode_worker(cluster)
    assert before.figures is not None
    assert before.figures.worker is not None
    assert before.figures.worker.load.pull_bytes > 0, "it was not handed off"
    former = follower(cluster)

    assert asyncio.run(answer(grpc, cluster)) == expected
    assert not survivors({former}, 1.0)
    cluster.wait_ready(lambda _: None)
    assert decode_worker(cluster).incarnation != before.incarnation
    assert asyncio.run(answer(grpc)) == expected
