"""Ray runs its actors on uvloop, whose transports only behave like asyncio's: links must not know the difference."""

import asyncio

import pytest

from tercet.config import LinkConfig
from tercet.errors import PeerLost
from tercet.ids import Epoch, RequestId
from tercet.link import connect, host_id
from tercet.wire import Cancel, Failed, Started, WorkerMessage

uvloop = pytest.importorskip("uvloop")

QUICK = LinkConfig(heartbeat_s=0.05, dead_after_s=0.4, outbox_bytes_max=2**20)


async def echo(hello, link):
    async for messages in link:
        link.post(*(Started(m.request, m.epoch) for m in messages))


@pytest.mark.parametrize("unix", [True, False])
def test_messages_flow_and_silence_is_bridged(own_host, hello, unix):
    async def story():
        async with own_host() as host:
            endpoint = await host.serve(echo, QUICK, unix=unix)
            link, _ = await connect(endpoint, hello(), WorkerMessage, QUICK, host_id())
            await asyncio.sleep(0.6)
            link.post(Cancel(RequestId("x" * 300_000), Epoch(1)))
            assert await anext(link) == [Started(RequestId("x" * 300_000), Epoch(1))]
            await link.close()

    uvloop.run(story())


def test_a_slow_reader_is_waited_for_or_lost(own_host, hello):
    reason: list[str] = []
    waited, lost = asyncio.Event(), asyncio.Event()

    async def push(hello, link):
        for _ in range(64):
            link.post(Failed(RequestId("r"), Epoch(0), "x" * 2**18))
            await link.drained()
        waited.set()
        try:
            while True:
                link.post(Failed(RequestId("r"), Epoch(0), "x" * 2**18))
                await asyncio.sleep(0)
        except PeerLost as exc:
            reason.append(str(exc))
            lost.set()

    async def story():
        async with own_host() as host:
            endpoint = await host.serve(push, QUICK)
            link, _ = await connect(endpoint, hello(), WorkerMessage, QUICK, host_id())
            count = 0
            while count < 64:
                count += len(await anext(link))
            async with asyncio.timeout(60):
                await waited.wait()
                await lost.wait()
            await link.close()

    uvloop.run(story())
    assert "does not read" in reason[0]
