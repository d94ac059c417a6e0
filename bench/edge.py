"""Claim: one core streams some ten thousand tokens a second to clients, as server-sent events and over gRPC.

    python bench/edge.py [--streams 32] [--tokens 1000] [--pause-ms 0]

A server process on the first core plays tokens from a script through the whole text level; its clients are on the last
core. With `--pause-ms 0` every stream runs as fast as it can; else a token comes every so often, as from a real model.
Prints a table and writes bench/results/edge.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import uvicorn

from tercet.client import AsyncClient
from tercet.router.fake_service import fake_service, saying
from tercet.router.fake_source import FakeSource
from tercet.router.http import build_api
from tercet.router.rpc import start_grpc

RESULT = Path(__file__).parent / "results" / "edge.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the server listens."""

    http: int
    grpc: int


@dataclass(frozen=True, slots=True)
class Figures:
    """One row."""

    door: str
    streams: int
    tokens: int
    pause_ms: float
    tokens_per_s: float
    server_cpu_us_per_token: float


async def serve(pipe: Connection, pause_s: float) -> None:
    source = FakeSource(saying("abcdefgh " * 20_000, eos=False), pause_s=pause_s)
    service = fake_service(source, context_tokens_max=1 << 20)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        http = uvicorn.Server(
            uvicorn.Config(build_api(lambda: service), log_level="warning", lifespan="off")
        )
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        rpc = await start_grpc(service, "127.0.0.1", 0)
        pipe.send(Ports(listener.getsockname()[1], rpc.port))
        while await asyncio.to_thread(pipe.recv):
            pipe.send(time.process_time())
        http.should_exit = True
        await serving
        await rpc.server.stop(grace=None)


def server(pipe: Connection, pause_s: float) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    asyncio.run(serve(pipe, pause_s))


async def over_http(port: int, tokens: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    body = json.dumps(
        {"model": "toy", "prompt": "x", "stream": True, "max_tokens": tokens}
    ).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    received = bytearray()
    while b"data: [DONE]" not in received[-64:]:
        received += await reader.read(1 << 16)
    writer.close()
    assert received.count(b'"length"') == 1, bytes(received[:500])


async def over_grpc(client: AsyncClient, tokens: int) -> None:
    got = 0
    async for delta in client.stream("x", max_tokens=tokens):
        got += len(delta.tokens)
    assert got == tokens, got


async def measure(
    door: str, pipe: Connection, stream: Callable[[], Awaitable[None]], args: argparse.Namespace
) -> Figures:
    def cpu_s() -> float:
        pipe.send(True)
        return float(pipe.recv())

    await stream()  # warm
    cpu_before_s, started_s = cpu_s(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(args.streams):
            group.create_task(_coroutine(stream))
    elapsed_s, used_s = time.perf_counter() - started_s, cpu_s() - cpu_before_s
    total = args.streams * args.tokens
    return Figures(
        door, args.streams, args.tokens, args.pause_ms, total / elapsed_s, used_s / total * 1e6
    )


async def _coroutine(stream: Callable[[], Awaitable[None]]) -> None:
    await stream()


async def clients(pipe: Connection, args: argparse.Namespace) -> list[Figures]:
    ports = pipe.recv()
    rows = [await measure("http", pipe, lambda: over_http(ports.http, args.tokens), args)]
    async with AsyncClient(f"127.0.0.1:{ports.grpc}") as client:
        rows.append(await measure("grpc", pipe, lambda: over_grpc(client, args.tokens), args))
    pipe.send(False)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--pause-ms", type=float, default=0.0)
    args = parser.parse_args()
    ours, theirs = multiprocessing.Pipe()
    spawn = multiprocessing.get_context("spawn")
    process = spawn.Process(target=server, args=(theirs, args.pause_ms / 1e3))
    process.start()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = asyncio.run(clients(ours, args))
    process.join(timeout=10)
    for row in rows:
        print(
            f"{row.door:5} {row.streams:4} streams {row.tokens_per_s:9,.0f} tokens/s"
            f" {row.server_cpu_us_per_token:6.1f} us of CPU a token"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
