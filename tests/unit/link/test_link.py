"""Links between real sockets of this process: order, coalescing, bounds, heartbeats, silence."""

import asyncio
import time

import pytest

from tercet.config import LinkConfig
from tercet.errors import PeerLost
from tercet.ids import Epoch, Incarnation, RequestId, WorkerId
from tercet.link import Link, connect, host_id
from tercet.wire import (
    Cancel,
    Failed,
    FrontDoorMessage,
    HandedOff,
    Started,
    Usage,
    WorkerMessage,
)

CONFIG = LinkConfig()
QUICK = LinkConfig(heartbeat_s=0.05, dead_after_s=0.25)


def cancel(number: int, padding: int = 0) -> Cancel:
    return Cancel(RequestId(f"r{number}" + "x" * padding), Epoch(number))


async def dial(endpoint, hello, config=CONFIG) -> Link[WorkerMessage]:
    link: Link[WorkerMessage]
    link, _ = await connect(endpoint, hello(), WorkerMessage, config, host_id())
    return link


async def echo(hello, link: Link[FrontDoorMessage]) -> None:
    async for messages in link:
        link.post(*(Started(m.request, m.epoch) for m in messages))


@pytest.mark.parametrize("unix", [True, False])
async def test_messages_arrive_in_order_and_whole(host, hello, unix):
    link = await dial(await host.serve(echo, CONFIG, unix=unix), hello)
    for number in range(100):
        link.post(cancel(number))
        if number % 7 == 0:
            await asyncio.sleep(0)
    seen: list[int] = []
    while len(seen) < 100:
        seen += [message.epoch for message in await anext(link)]
    assert seen == list(range(100))
    await link.close()


async def test_posts_of_one_loop_turn_leave_as_one_frame(host, hello):
    frames: list[int] = []

    async def count(hello, link):
        async for messages in link:
            frames.append(len(messages))
            link.post(Started(RequestId("r"), Epoch(0)))

    link = await dial(await host.serve(count, CONFIG), hello)
    link.post(cancel(0), cancel(1))
    link.post(cancel(2))
    await anext(link)
    assert frames == [3]
    await link.close()


async def test_own_close_ends_the_iteration_and_flushes_what_was_posted(host, hello):
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def take(hello, link):
        async for messages in link:
            for message in messages:
                arrived.put_nowait(message.epoch)

    link = await dial(await host.serve(take, CONFIG), hello)
    link.post(cancel(7))
    await link.close()
    await link.close()
    assert [batch async for batch in link] == []
    async with asyncio.timeout(60):
        assert await arrived.get() == 7
    with pytest.raises(PeerLost):
        link.post(cancel(8))


async def test_what_arrived_before_the_peer_left_is_still_delivered(host, hello):
    async def leave(hello, link):
        link.post(HandedOff(RequestId("r"), Epoch(3), Usage(cached_tokens=5)))

    link = await dial(await host.serve(leave, CONFIG), hello)
    await asyncio.sleep(0.05)
    assert await anext(link) == [HandedOff(RequestId("r"), Epoch(3), Usage(cached_tokens=5))]
    with pytest.raises(PeerLost, match="closed"):
        await anext(link)
    await link.close()


async def test_an_idle_link_lives_on_heartbeats_that_nobody_sees(host, hello):
    link = await dial(await host.serve(echo, QUICK), hello, QUICK)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await anext(link)
    link.post(cancel(1))
    assert await anext(link) == [Started(RequestId("r1"), Epoch(1))]
    await link.close()


async def test_a_silent_peer_is_lost_after_dead_after_s(host, hello):
    mute = LinkConfig(heartbeat_s=30.0, dead_after_s=30.0)
    link = await dial(await host.serve(echo, mute), hello, QUICK)
    began_s = time.monotonic()
    with pytest.raises(PeerLost, match="silent"):
        await anext(link)
    assert 0.2 < time.monotonic() - began_s < 1.0
    with pytest.raises(PeerLost):
        link.post(cancel(1))
    await link.close()


async def test_our_own_slowness_is_not_the_peers_silence(host, hello):
    async def chatter(hello, link):
        while True:
            link.post(Failed(RequestId("r"), Epoch(0), "x" * 2**20))
            await link.drained()

    endpoint = await host.serve(chatter, LinkConfig(heartbeat_s=0.05, dead_after_s=20))
    link = await dial(endpoint, hello, QUICK)
    await asyncio.sleep(0.8)  # the inbox is full and the socket paused by now
    for _ in range(30):
        assert await anext(link)
    await link.close()


async def test_a_reader_that_falls_behind_is_lost_and_costs_bounded_memory(host, hello):
    small = LinkConfig(outbox_bytes_max=2**20)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def flood(hello, link):
        try:
            while True:
                link.post(Failed(RequestId("r"), Epoch(0), "x" * 2**18))
                await asyncio.sleep(0)
        except PeerLost as exc:
            ended.set_result(str(exc))

    link = await dial(await host.serve(flood, small), hello)
    async with asyncio.timeout(60):
        assert "does not read" in await ended
    await link.close()


async def test_drained_waits_for_a_slow_reader_instead(host, hello):
    async def paced(hello, link):
        for _ in range(64):
            link.post(Failed(RequestId("r"), Epoch(0), "x" * 2**18))
            await link.drained()
        async for _ in link:
            pass

    link = await dial(await host.serve(paced, LinkConfig(outbox_bytes_max=2**20)), hello)
    count = 0
    while count < 64:
        count += len(await anext(link))
        await asyncio.sleep(0.001)
    await link.close()


async def test_a_batch_beyond_the_frame_bound_is_split_and_a_message_beyond_it_is_an_error(
    host, hello
):
    bound = LinkConfig(frame_bytes_max=10_000)
    link = await dial(await host.serve(echo, bound), hello, bound)
    link.post(*(cancel(number, padding=900) for number in range(40)))
    seen: list[int] = []
    while len(seen) < 40:
        seen += [message.epoch for message in await anext(link)]
    assert seen == list(range(40))
    link.post(cancel(0, padding=20_000))
    with pytest.raises(PeerLost, match="fits no frame"):
        await anext(link)
    await link.close()


async def test_a_frame_of_several_megabytes_arrives(host, hello):
    link = await dial(await host.serve(echo, CONFIG), hello)
    link.post(cancel(1, padding=6 * 2**20))
    (message,) = await anext(link)
    assert len(message.request) == 6 * 2**20 + 2
    await link.close()


async def test_a_frame_beyond_the_receivers_bound_ends_the_link(host, hello):
    endpoint = await host.serve(echo, LinkConfig(frame_bytes_max=10_000))
    link = await dial(endpoint, hello)
    link.post(cancel(1, padding=20_000))
    with pytest.raises(PeerLost):
        await anext(link)
    await link.close()


async def test_a_message_of_the_wrong_direction_ends_the_link(host, hello):
    link = await dial(await host.serve(echo, CONFIG), hello)
    link.post(Started(RequestId("r"), Epoch(0)))
    with pytest.raises(PeerLost):
        await anext(link)
    await link.close()


async def test_closing_the_server_ends_its_links_and_tasks(host, hello):
    link = await dial(await host.serve(echo, CONFIG), hello)
    assert host.servers[0].links == 1
    await host.servers[0].close()
    with pytest.raises(PeerLost):
        await anext(link)
    await link.close()


async def test_nobody_there_is_peer_lost(host, hello, tmp_path):
    endpoint = await host.serve(echo, CONFIG)
    await host.servers[0].close()
    with pytest.raises(PeerLost, match=f"{WorkerId('w')}:{Incarnation('life-1')}"):
        await dial(endpoint, hello)
