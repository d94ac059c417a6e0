"""Who may talk: version before anything else, then cluster, incarnation and whatever the worker asks."""

import asyncio

import msgspec
import pytest

from tercet.config import LinkConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation, WorkerId
from tercet.link import connect, host_id
from tercet.link.handshake import judge
from tercet.wire import PROTOCOL_VERSION, Hello, Refuse, Welcome, WorkerMessage

CONFIG = LinkConfig(dead_after_s=0.5)


async def serve_nothing(hello, link):
    async for _ in link:
        pass


async def dial(endpoint, hello):
    return await connect(endpoint, hello, WorkerMessage, CONFIG, host_id())


async def test_another_version_is_refused_naming_both(host, hello):
    endpoint = await host.serve(serve_nothing, CONFIG)
    with pytest.raises(PeerRefused, match=rf"protocol 99.*speaks {PROTOCOL_VERSION}"):
        await dial(endpoint, hello(protocol=99))


@pytest.mark.parametrize("rest", [[], [{"new": "layout"}], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
def test_a_hello_of_unknown_layout_is_answered_all_the_same(rest):
    frame = msgspec.msgpack.encode([["Hello", PROTOCOL_VERSION + 1, *rest]])
    hello, answer = judge(frame, greet=lambda _: pytest.fail("was decoded"))
    assert hello is None
    assert answer == Refuse(
        f"you speak protocol {PROTOCOL_VERSION + 1}, this worker speaks {PROTOCOL_VERSION}"
    )


@pytest.mark.parametrize("frame", [b"", b"GET / HTTP/1.1", msgspec.msgpack.encode([]), b"\xc1"])
def test_a_stranger_is_no_peer(frame):
    with pytest.raises(PeerLost, match="not one of ours"):
        judge(frame, greet=lambda _: pytest.fail("was decoded"))


async def test_another_cluster_is_refused(host, hello):
    endpoint = await host.serve(serve_nothing, CONFIG)
    with pytest.raises(PeerRefused, match="this is cluster 'test', not 'other'"):
        await dial(endpoint, hello(cluster="other"))


async def test_a_reference_to_a_former_life_is_refused_and_the_new_one_works_at_once(host, hello):
    old = await host.serve(serve_nothing, CONFIG)
    await host.servers[0].close()
    life = Incarnation("life-2")
    host.greet = lambda _: Welcome(PROTOCOL_VERSION, WorkerId("w"), life)
    new = await host.serve(serve_nothing, CONFIG, life=life)
    with pytest.raises(PeerRefused, match="life-1 is gone; this is life-2"):
        await dial(msgspec.structs.replace(old, port=new.port), hello())
    link, welcome = await dial(new, hello(expects=life))
    assert welcome.incarnation == life
    await link.close()


async def test_the_workers_own_reason_reaches_the_caller(host, hello):
    host.refusal = "KV of llama is not KV of qwen"
    endpoint = await host.serve(serve_nothing, CONFIG)
    with pytest.raises(PeerRefused, match="KV of llama"):
        await dial(endpoint, hello())


async def test_a_server_that_does_not_answer_is_lost_within_the_timeout(hello, host, tmp_path):
    async def mute(reader, writer):
        await reader.read()
        writer.close()

    path = tmp_path / "mute.sock"
    server = await asyncio.start_unix_server(mute, path)
    endpoint = msgspec.structs.replace(await host.serve(serve_nothing, CONFIG), unix=str(path))
    with pytest.raises(PeerLost, match="no answer within"):
        await dial(endpoint, hello())
    server.close()
    await server.wait_closed()


async def test_a_client_that_says_nothing_does_not_hold_a_place(host, hello):
    endpoint = await host.serve(serve_nothing, CONFIG)
    reader, writer = await asyncio.open_unix_connection(endpoint.unix)
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    assert host.servers[0].links == 0


async def test_an_older_server_s_socket_file_is_left_alone_by_its_late_death(host, hello):
    await host.serve(serve_nothing, CONFIG)
    life = Incarnation("life-2")
    await host.serve(serve_nothing, CONFIG, life=life)
    await host.servers[0].close()
    assert host.has_socket


def test_hello_starts_with_its_name_and_version_for_ever():
    hello = Hello(PROTOCOL_VERSION, "c", "s", Incarnation("i"), Incarnation("e"))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([hello]))[0][:2] == [
        "Hello",
        PROTOCOL_VERSION,
    ]
