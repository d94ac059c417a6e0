"""Hand-offs and live moves between a worker of one process and one of two, over real NIXL: the output is transformers' own."""

import asyncio
import os
import signal

import msgspec
import pytest
from moves.stage import Stage

from tercet.cluster.process_tree import descendants, survivors
from tercet.config import ModelConfig, PoolConfig, Pools
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.wire import Adopt, HandedOff, Started, Submit

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def stage(stage: Stage, demo_model) -> Stage:
    """Prefill workers of one process, decode workers of two, with the demo model."""
    pools = Pools(prefill=PoolConfig(), decode=PoolConfig(tensor_parallel=2))
    transfer = msgspec.structs.replace(stage.config.transfer, wait_s=10.0, lease_s=20.0)
    link = msgspec.structs.replace(stage.config.link, dead_after_s=5.0)
    model = ModelConfig(path=str(demo_model))
    stage.config = msgspec.structs.replace(
        stage.config, model=model, pools=pools, transfer=transfer, link=link
    )
    return stage


def request(name: str, prompt_tokens: int, max_tokens: int) -> RequestSpec:
    prompt = [40 + (7 * i + i // 5) % 400 for i in range(prompt_tokens)]
    sampling = Sampling(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
    return RequestSpec(RequestId(name), prompt, sampling)


async def test_one_prefills_and_two_decode_and_a_running_request_moves_there_and_back(
    stage, reference
):
    one, two = await asyncio.gather(stage.start("p0", Role.PREFILL), stage.start("d0", Role.DECODE))
    (follower,) = [p for p in descendants(os.getpid()) if "workers.parallel" in p.command]

    handed = request("handed", 150, 12)
    stage.door.send(one, Submit(handed, Epoch(0), hand_off=True))
    await stage.door.hears(Started, handed.id)
    stage.door.send(two, Adopt(handed, Epoch(1), one.endpoint, Epoch(0)))
    output = await stage.door.finish(handed.id)
    assert output == reference(handed.prompt, 12, temperature=0.0, seed=0)
    await stage.door.hears(HandedOff, handed.id)
    assert stage.door.usage[handed.id].pulled_tokens == 150
    figures = (await two.idle()).load
    assert figures.pull_bytes == -(-150 // 16) * figures.block_bytes

    moving = request("moving", 60, 100)
    stage.door.send(two, Submit(moving, Epoch(0)))
    for epoch, (source, destination) in enumerate([(two, one), (one, two), (two, one), (one, two)]):
        heard = len(stage.door.logs[moving.id].tokens) if moving.id in stage.door.logs else 0
        await stage.door.says(moving.id, heard + 2)
        known = list(stage.door.logs[moving.id].tokens)
        order = Adopt(moving, Epoch(epoch + 1), source.endpoint, Epoch(epoch), known, live=True)
        stage.door.send(destination, order)
        await stage.door.speaks(moving.id, Epoch(epoch + 1))
    output = await stage.door.finish(moving.id)
    assert output == reference(moving.prompt, 100, temperature=0.0, seed=0)
    assert (await two.idle()).recomputed == (await one.idle()).recomputed == 0
    os.kill(follower.pid, signal.SIGSTOP)
    two.signal(signal.SIGKILL)
    await two.process.wait()
    assert not await asyncio.to_thread(survivors, {follower}, 5.0), "it outlives its worker"
