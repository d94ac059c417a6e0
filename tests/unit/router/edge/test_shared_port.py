"""Servers of several front doors on one port: who gets connections, and what becomes of them when one ends."""

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tercet.app.ports import is_taken
from tercet.router.fake_source import FakeSource
from tercet.router.http import build_api
from tercet.router.http_server import HttpServer, listen, start_http
from tercet.router.service import Service

HOST = "127.0.0.1"
CONNECTIONS = 40
"""So many that each of two listeners gets one: with one chance in 2**39 not."""
BODY = {"model": "toy", "prompt": "x", "stream": True}


def named(name: str) -> ASGIApp:
    """An application that says who it is."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})

    return app


async def answers(port: int) -> set[str]:
    """Who answers on that port, over connections of their own."""
    said = set()
    for _ in range(CONNECTIONS):
        async with httpx.AsyncClient() as client:
            said.add((await client.get(f"http://{HOST}:{port}/")).text)
    return said


@pytest.fixture
async def server(service: Service) -> AsyncIterator[HttpServer]:
    server = start_http(build_api(lambda: service), HOST, 0)
    yield server
    await server.stop(0)


async def test_two_servers_share_a_port_and_the_one_left_gets_everything() -> None:
    one = start_http(named("one"), HOST, 0)
    other = start_http(named("other"), HOST, one.port)
    assert one.port == other.port
    assert await answers(one.port) == {"one", "other"}
    await one.stop(0)
    assert await answers(other.port) == {"other"}
    again = start_http(named("again"), HOST, other.port)
    assert await answers(other.port) == {"other", "again"}
    await other.stop(0)
    await again.stop(0)


def test_a_port_that_is_not_shared_is_refused() -> None:
    with socket.socket() as selfish:
        selfish.bind((HOST, 0))
        selfish.listen()
        with pytest.raises(OSError, match="in use"):
            listen(HOST, selfish.getsockname()[1])


def test_a_shared_port_counts_as_taken_for_other_clusters() -> None:
    with listen(HOST, 0) as listener:
        port = listener.getsockname()[1]
        assert is_taken(HOST, port)
    assert not is_taken(HOST, port)


async def test_a_server_that_stops_finishes_what_it_has_and_takes_nothing_new(
    server: HttpServer, source: FakeSource
) -> None:
    source.gate = asyncio.Event()
    async with (
        httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}") as client,
        client.stream("POST", "/v1/completions", json=BODY) as reply,
    ):
        lines = reply.aiter_lines()
        await anext(lines)
        stopping = asyncio.create_task(server.stop(60))
        with pytest.raises(httpx.ConnectError):
            await refused(server.port)
        assert not stopping.done()
        source.gate.set()
        assert [line async for line in lines if line][-1] == "data: [DONE]"
        await stopping


async def test_what_is_not_done_after_the_grace_is_cancelled(
    server: HttpServer, source: FakeSource
) -> None:
    source.gate = asyncio.Event()
    async with (
        httpx.AsyncClient(base_url=f"http://{HOST}:{server.port}") as client,
        client.stream("POST", "/v1/completions", json=BODY) as reply,
    ):
        lines = reply.aiter_lines()
        await anext(lines)
        await server.stop(0)
        assert source.active == 0
        with pytest.raises(httpx.RemoteProtocolError):
            [line async for line in lines]


async def test_a_server_that_has_ended_is_not_healthy() -> None:
    server = start_http(named("one"), HOST, 0)
    server.check()
    await server.stop(0)
    with pytest.raises(RuntimeError, match="has ended"):
        server.check()


async def refused(port: int) -> None:
    """Ask until nobody listens."""
    async with asyncio.timeout(60):
        while True:
            async with httpx.AsyncClient() as client:
                await client.get(f"http://{HOST}:{port}/health")
