"""How many tokens a second one core of the front door can stream, at token level: no text, no HTTP.

A worker in a process of its own floods real frames, one token for each of `--streams` requests a frame, as an engine step
does; every generation has its reader. Tokens per second of the front door's own CPU time are what one core can do; the
wall-clock figure includes waiting for the worker. At full speed several steps' tokens reach a reader at once; with a step
time each token wakes its reader, as in service. The cost of admitting and routing is measured on one-token requests.
"""

import argparse
import asyncio
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig, FrontDoorConfig, ModelConfig
from tercet.ids import Epoch, FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.link import Link, LinkServer, host_id
from tercet.request import FinishReason, RequestSpec, Sampling
from tercet.role import Role
from tercet.router.front_door import FrontDoor
from tercet.wire import (
    PROTOCOL_VERSION,
    Endpoint,
    FrontDoorMessage,
    LoadReport,
    Membership,
    Message,
    Submit,
    Tokens,
    Welcome,
)

LIFE = Incarnation("bench")
CONFIG = ClusterConfig(
    model=ModelConfig(path="unused"), front_door=FrontDoorConfig(in_flight_max=1024)
)


@dataclass(frozen=True)
class Load:
    """What is measured."""

    streams: int
    requests: int
    tokens: int
    prompt_tokens: int = 512
    step_s: float = 0.0


@dataclass(frozen=True)
class Row:
    """One measurement."""

    streams: int
    step_ms: float
    tokens_per_request: int
    prompt_tokens: int
    tokens_per_cpu_s: float
    tokens_per_s: float
    cpu_us_per_request: float


IDLE = LoadReport(
    role=Role.DECODE,
    waiting=0,
    running=0,
    holding=0,
    pulling=0,
    pending_prefill_tokens=0,
    context_tokens=0,
    blocks_total=1024,
    blocks_used=0,
)


async def report(link: Link[Message]) -> None:
    """A worker without reports is suspect and gets no work."""
    while True:
        link.post(IDLE)
        await asyncio.sleep(CONFIG.link.report_period_s)


async def work(streams: int, step_s: float, link: Link[Message]) -> None:
    """One front door's session."""
    reporter = asyncio.create_task(report(link))
    try:
        await flood(streams, step_s, link)
    finally:
        reporter.cancel()
        await asyncio.gather(reporter, return_exceptions=True)


async def flood(streams: int, step_s: float, link: Link[Message]) -> None:
    """Whenever `streams` requests have come, stream all of them as fast as they are taken."""
    waiting: list[RequestSpec] = []
    async for frame in link:
        waiting += [message.spec for message in frame if isinstance(message, Submit)]
        if len(waiting) < streams:
            continue
        batch, waiting = waiting, []
        last = batch[0].sampling.max_tokens - 1
        for index in range(last + 1):
            finish = FinishReason.LENGTH if index == last else None
            link.post(*(Tokens(spec.id, Epoch(0), index, [7], finish=finish) for spec in batch))
            await link.drained()
            if step_s:
                await asyncio.sleep(step_s)


def serve(streams: int, step_s: float, path: str, ready: Connection) -> None:
    """The worker, a process of its own."""

    async def main() -> None:
        server = LinkServer(
            lambda hello: Welcome(PROTOCOL_VERSION, WorkerId("decode-0"), LIFE),
            lambda _, link: work(streams, step_s, link),
            FrontDoorMessage,
            CONFIG.link,
            cluster=CONFIG.name,
            incarnation=LIFE,
        )
        port = await server.listen("127.0.0.1", 0, Path(path))
        endpoint = Endpoint(
            WorkerId("decode-0"), LIFE, Role.DECODE, "127.0.0.1", port, host_id(), path
        )
        ready.send_bytes(msgspec.msgpack.encode(endpoint))
        await asyncio.to_thread(ready.recv)
        await server.close()

    asyncio.run(main())


async def read(door: FrontDoor, name: str, prompt: list[int], tokens: int) -> int:
    """One client; returns how many tokens it got."""
    spec = RequestSpec(RequestId(name), prompt, Sampling(max_tokens=tokens))
    async with door.generate(spec) as generation:
        return sum([len(piece.tokens) async for piece in generation])


async def stream(endpoint: Endpoint, load: Load) -> Row:
    """The requests in rounds of `streams` at once."""
    streams, requests, tokens = load.streams, load.requests, load.tokens
    door = FrontDoor(CONFIG, FrontDoorId("bench"))
    door.update(Membership(1, (endpoint,)))
    await door.start()
    prompt = list(range(load.prompt_tokens))
    got, began_s, began_cpu_s = 0, time.monotonic(), time.process_time()
    for first in range(0, requests, streams):
        names = [f"req-{number:024d}" for number in range(first, first + streams)]
        got += sum(await asyncio.gather(*(read(door, name, prompt, tokens) for name in names)))
    wall_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    assert got == requests * tokens, f"lost or repeated tokens: {got=}"
    await door.stop()
    return Row(
        streams=streams,
        step_ms=load.step_s * 1e3,
        tokens_per_request=tokens,
        prompt_tokens=load.prompt_tokens,
        tokens_per_cpu_s=got / cpu_s,
        tokens_per_s=got / wall_s,
        cpu_us_per_request=cpu_s / requests * 1e6,
    )


def measure(load: Load) -> Row:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory() as directory:
        arguments = (load.streams, load.step_s, f"{directory}/w.sock", theirs)
        process = context.Process(target=serve, args=arguments)
        process.start()
        endpoint = msgspec.msgpack.decode(ours.recv_bytes(), type=Endpoint)
        row = asyncio.run(stream(endpoint, load))
        ours.send(None)
        process.join()
    return row


def main(show: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--tokens", type=int, default=200_000, help="streamed in each measurement")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    loads = [Load(n, n, arguments.tokens // n) for n in arguments.streams]
    loads += [Load(n, n, 500, step_s=0.005) for n in arguments.streams]
    loads += [Load(32, 3200, 1, prompt_tokens=tokens) for tokens in (32, 512, 8192)]
    rows = [measure(load) for load in loads]
    show(
        f"{'streams':>8}{'step ms':>8}{'prompt':>8}{'tokens each':>13}{'tokens/CPU-s':>14}"
        f"{'tokens/s':>12}{'µs/request':>12}"
    )
    for row in rows:
        show(
            f"{row.streams:>8}{row.step_ms:>8.0f}{row.prompt_tokens:>8}{row.tokens_per_request:>13}"
            f"{row.tokens_per_cpu_s:>14,.0f}{row.tokens_per_s:>12,.0f}{row.cpu_us_per_request:>12,.0f}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    main()
