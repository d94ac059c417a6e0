"""Other people's routers in front of mock workers that speak OpenAI's HTTP API."""

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

from children import Process, program, script
from replay import MODEL
from stage import Facts, Running, Stage, Unavailable, Variant

READY_S_MAX = 60.0
POLL_S = 0.1


class Peer(NamedTuple):
    """A router and how it is started."""

    package: str
    environment: str
    """Folder of its virtual environment."""
    command: tuple[str, ...]
    """Relative to that folder."""
    quiet: str
    """Its name for the log level that leaves warnings only."""


PEERS = {
    "sglang": Peer(
        "sglang-router", "sg", ("bin/python", "-m", "sglang_router.launch_router"), "warn"
    ),
    "vllm": Peer("vllm-router", "vr", ("bin/vllm-router",), "warning"),
}


def home_of(variant: Variant, stage: Stage) -> Path:
    """The peer's virtual environment; raises Unavailable without one."""
    peer = PEERS.get(variant.system)
    if peer is None:
        raise Unavailable(f"there is no {variant.system!r}, only {', '.join(PEERS)}")
    if stage.peers is None:
        raise Unavailable("no --peers folder was given")
    return stage.peers.absolute() / peer.environment


def version_of(variant: Variant, stage: Stage) -> str:
    """The package with its version; raises Unavailable when it is not installed."""
    home = home_of(variant, stage)
    package = PEERS[variant.system].package
    pattern = f"lib/python3*/site-packages/{package.replace('-', '_')}-*.dist-info"
    found = next(home.glob(pattern), None)
    if found is None:
        raise Unavailable(f"{package} is not installed in {home.name}/ of --peers")
    return f"{package} {found.name.removesuffix('.dist-info').rpartition('-')[2]}"


@asynccontextmanager
async def peer_side(variant: Variant, stage: Stage) -> AsyncIterator[Running]:
    """A router ready to serve while the context lasts. Raises Unavailable."""
    version_of(variant, stage)
    settings = msgspec.json.encode(stage.timing).decode()
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(script("mock_worker.py", settings))
            for _ in range(stage.workers)
        ]
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        log, port = Path(directory) / "router.log", free_port()
        urls = [f"http://127.0.0.1:{worker.greeting}" for worker in workers]
        command = command_of(variant, stage, port, urls)
        router = await stack.enter_async_context(program(command, log))
        url = f"http://127.0.0.1:{port}"
        await _until_ready(url, router, log)

        async def facts() -> Facts:
            return Facts([int(await worker.ask()) for worker in workers])

        yield Running(url, facts)


def command_of(variant: Variant, stage: Stage, port: int, urls: list[str]) -> list[str]:
    """The command line; a variant's options are the router's own, by their long names."""
    peer = PEERS[variant.system]
    options = [
        part
        for name, value in variant.options.items()
        for part in (f"--{name.replace('_', '-')}", value)
    ]
    return [
        str(home_of(variant, stage) / peer.command[0]),
        *peer.command[1:],
        *("--worker-urls", *urls),
        *("--policy", variant.policy, *options),
        *("--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(free_port())),
        *("--log-level", peer.quiet),
    ]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


async def _until_ready(url: str, router: Process, log: Path) -> None:
    """Until it answers a completion; a router that is up may not have found its workers yet."""
    body = {"model": MODEL, "prompt": "x1", "max_tokens": 1, "stream": True}
    last = "it has ended"
    try:
        async with asyncio.timeout(READY_S_MAX), aiohttp.ClientSession() as http:
            while router.returncode is None:
                try:
                    async with http.post(f"{url}/v1/completions", json=body) as answer:
                        await answer.read()
                        if answer.status == 200:
                            return
                        last = f"it answered {answer.status}"
                except aiohttp.ClientError as exc:
                    last = str(exc)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        last = f"not within {READY_S_MAX:g} s, {last}"
    said = await asyncio.to_thread(log.read_text)
    raise Unavailable(f"the router did not get ready: {last}; {said[-500:]}")
