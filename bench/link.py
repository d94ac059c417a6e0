"""How fast a link is: one-way latency of a token's message and messages a second, between two processes.

The receiver stamps what it gets with the clock both processes share (one machine), so latency is one way. Frames carry
`--batch` messages, as an engine step of that many running requests does.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from tercet.config import LinkConfig
from tercet.ids import Epoch, Incarnation, RequestId, WorkerId
from tercet.link import Link, LinkServer, connect, host_id
from tercet.role import Role
from tercet.wire import (
    PROTOCOL_VERSION,
    Cancel,
    Endpoint,
    FrontDoorMessage,
    Hello,
    Message,
    Tokens,
    Welcome,
    WorkerMessage,
)

LIFE = Incarnation("bench")
CONFIG = LinkConfig()


@dataclass(frozen=True)
class Row:
    """One measurement."""

    transport: str
    batch: int
    latency_us_p50: float
    latency_us_p99: float
    messages_per_s: float


def step(batch: int, stamp_ns: int) -> list[Tokens]:
    """What an engine step sends: one token for each of `batch` requests; the stamp rides in the token's place."""
    return [Tokens(RequestId(f"req-{i:024d}"), Epoch(0), 0, [stamp_ns]) for i in range(batch)]


async def send(batch: int, paced: int, flood: int, link: Link[Message]) -> None:
    """First `paced` steps 2 ms apart, for the latency; then `flood` messages as fast as they are taken."""
    await anext(link)
    for _ in range(paced):
        link.post(*step(batch, time.monotonic_ns()))
        await asyncio.sleep(0.002)
    await anext(link)
    for _ in range(flood // batch):
        link.post(*step(batch, 0))
        await link.drained()
    async for _ in link:
        pass


def serve(batch: int, paced: int, flood: int, path: str, ready: Connection) -> None:
    """The worker's side, a process of its own."""

    async def main() -> None:
        async def handle(hello: Hello, link: Link[Message]) -> None:
            await send(batch, paced, flood, link)

        welcome = Welcome(PROTOCOL_VERSION, WorkerId("w"), LIFE)
        server = LinkServer(
            lambda hello: welcome,
            handle,
            FrontDoorMessage,
            CONFIG,
            cluster="bench",
            incarnation=LIFE,
        )
        port = await server.listen("127.0.0.1", 0, Path(path))
        endpoint = Endpoint(WorkerId("w"), LIFE, Role.DECODE, "127.0.0.1", port, host_id(), path)
        ready.send_bytes(msgspec.msgpack.encode(endpoint))
        await asyncio.to_thread(ready.recv)
        await server.close()

    asyncio.run(main())


async def receive(endpoint: Endpoint, transport: str, batch: int, paced: int, flood: int) -> Row:
    """The front door's side."""
    hello = Hello(PROTOCOL_VERSION, "bench", "f", Incarnation("f"), LIFE)
    where = endpoint if transport == "unix" else msgspec.structs.replace(endpoint, unix="")
    link: Link[WorkerMessage]
    link, _ = await connect(where, hello, WorkerMessage, CONFIG, host_id())
    link.post(Cancel(RequestId("go"), Epoch(0)))
    latencies_us: list[float] = []
    while len(latencies_us) < paced:
        for message in await anext(link):
            if isinstance(message, Tokens) and message.request.endswith("0" * 24):
                latencies_us.append((time.monotonic_ns() - message.tokens[0]) / 1e3)
    link.post(Cancel(RequestId("go"), Epoch(0)))
    began_s, count = time.monotonic(), 0
    while count < flood // batch * batch:
        count += len(await anext(link))
    seconds = time.monotonic() - began_s
    await link.close()
    quantiles = statistics.quantiles(latencies_us, n=100)
    return Row(transport, batch, quantiles[49], quantiles[98], count / seconds)


def measure(transport: str, batch: int, paced: int, flood: int) -> Row:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        arguments = (batch, paced, flood, f"{directory}/w.sock", theirs)
        process = context.Process(target=serve, args=arguments)
        process.start()
        endpoint = msgspec.msgpack.decode(ours.recv_bytes(), type=Endpoint)
        row = asyncio.run(receive(endpoint, transport, batch, paced, flood))
        ours.send(None)
        process.join()
    return row


def main(show: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--paced", type=int, default=1000, help="steps measured for latency")
    parser.add_argument("--flood", type=int, default=200_000, help="messages sent at full speed")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = [
        measure(transport, batch, arguments.paced, arguments.flood)
        for transport in ("unix", "tcp")
        for batch in arguments.batch
    ]
    show(f"{'transport':<10}{'batch':>6}{'p50 µs':>10}{'p99 µs':>10}{'messages/s':>14}")
    for row in rows:
        show(
            f"{row.transport:<10}{row.batch:>6}{row.latency_us_p50:>10.0f}"
            f"{row.latency_us_p99:>10.0f}{row.messages_per_s:>14,.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
