"""Workers in processes of their own, and a front door that is only a few links and a log of tokens."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tercet.clock import MonotonicClock
from tercet.config import ClusterConfig, EngineConfig, LinkConfig, ModelConfig, TransferConfig
from tercet.errors import PeerLost
from tercet.ids import Epoch, Incarnation, RequestId
from tercet.link import Link, connect, host_id
from tercet.request import RequestSpec, Sampling, TokenLog
from tercet.role import Role
from tercet.wire import (
    PROTOCOL_VERSION,
    Endpoint,
    Hello,
    LoadReport,
    Message,
    Tokens,
    Usage,
    WorkerMessage,
)
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.status import WorkerStatus
from tercet.workers.toy_runner import ToyRunner

PATIENCE_S = 60.0
START_S_MAX = 120.0


def small_cluster() -> ClusterConfig:
    """Small pools, and deadlines short enough to wait for."""
    return ClusterConfig(
        model=ModelConfig(path="/nowhere"),
        engine=EngineConfig(kv_blocks=160, block_tokens=16, step_tokens_max=64),
        link=LinkConfig(heartbeat_s=0.1, dead_after_s=1.0, report_period_s=0.05),
        transfer=TransferConfig(
            lease_s=2.0,
            renew_s=0.2,
            wait_s=1.0,
            expected_bytes_per_s=200e6,
            net_devices="lo",
        ),
    )


class WorkerProcess:
    """One worker in a child process."""

    def __init__(self, process: asyncio.subprocess.Process, endpoint: Endpoint) -> None:
        self.process = process
        self.endpoint = endpoint
        self.killed = False
        """It may take a while until that shows in its return code."""

    async def status(self) -> WorkerStatus:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(b"status\n")
        async with asyncio.timeout(PATIENCE_S):
            line = await self.process.stdout.readline()
        assert line, f"{self.endpoint.worker} has ended: {self.process.returncode}"
        return msgspec.json.decode(line, type=WorkerStatus)

    async def until(self, condition: Callable[[WorkerStatus], bool]) -> WorkerStatus:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                status = await self.status()
                if condition(status):
                    return status

    async def idle(self) -> WorkerStatus:
        """Waits until nothing is kept for anybody."""
        return await self.until(
            lambda status: (
                not (
                    status.departures
                    or status.arrivals
                    or status.unsettled_pulls
                    or status.staged_blocks
                    or status.load.blocks_used
                    or status.load.quarantined_blocks
                    or status.load.leases
                    or status.load.waiting + status.load.running
                    or status.load.holding + status.load.pulling
                )
            )
        )

    def signal(self, number: signal.Signals) -> None:
        self.killed |= number is signal.SIGKILL
        self.process.send_signal(number)

    async def stop(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await self.process.wait() == 0


class FrontDoor:
    """Sends orders and keeps every request's log, as the fences of a `TokenLog` see it."""

    def __init__(self, config: ClusterConfig) -> None:
        self.config = config
        self.links: dict[Incarnation, Link[WorkerMessage]] = {}
        self.logs: dict[RequestId, TokenLog] = {}
        self.usage: dict[RequestId, Usage] = {}
        self.said: list[Message] = []
        self.changed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    async def dial(self, endpoint: Endpoint) -> None:
        hello = Hello(PROTOCOL_VERSION, "tercet", "f", Incarnation("f-1"), endpoint.incarnation)
        link: Link[WorkerMessage]
        link, _ = await connect(endpoint, hello, WorkerMessage, self.config.link, host_id())
        self.links[endpoint.incarnation] = link
        self.tasks.add(asyncio.create_task(self.listen(link)))

    async def listen(self, link: Link[WorkerMessage]) -> None:
        try:
            async for messages in link:
                for message in messages:
                    self.take(message)
        except PeerLost:
            self.changed.set()

    def take(self, message: Message) -> None:
        if isinstance(message, LoadReport):
            return
        self.said.append(message)
        if isinstance(message, Tokens):
            log = self.logs.setdefault(message.request, TokenLog())
            log.append(message.epoch, message.index, message.tokens)
            if message.usage is not None:
                self.usage[message.request] = message.usage
        self.changed.set()

    def send(self, worker: WorkerProcess, *orders: Message) -> None:
        self.links[worker.endpoint.incarnation].post(*orders)

    async def hears(self, kind: type[Message], request: RequestId) -> None:
        """Waits until a message of this kind has come for the request."""
        await self._until(
            lambda: any(isinstance(m, kind) and m.request == request for m in self.said)
        )

    async def says(self, request: RequestId, tokens: int) -> None:
        """Waits for so many tokens of the request."""
        await self._until(lambda: request in self.logs and len(self.logs[request].tokens) >= tokens)

    async def speaks(self, request: RequestId, epoch: Epoch) -> None:
        """Waits until the request's owner under this epoch has said tokens."""
        await self._until(lambda: self.logs[request].fence >= epoch)

    async def finish(self, request: RequestId) -> list[int]:
        """Waits for the end of the request; returns its output."""
        await self._until(lambda: request in self.usage)
        return self.logs[request].tokens

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def close(self) -> None:
        for link in self.links.values():
            await link.close()
        await asyncio.gather(*self.tasks)


@dataclass(frozen=True)
class Place:
    """Where a worker runs: on this machine as it is, or by a command that takes it elsewhere."""

    address: str = "127.0.0.1"
    entrance: tuple[str, ...] = ()
    """Comes before the command line."""


class Stage:
    """Everything a test needs: processes by name, the front door, and what the output must be."""

    def __init__(self, run_dir: Path, config: ClusterConfig | None = None) -> None:
        self.run_dir = run_dir
        self.config = config or small_cluster()
        self.places: dict[str, Place] = {}
        self.head_dim = 4
        self.free_packing = False
        self.environment: dict[str, str] = {}
        self.door = FrontDoor(self.config)
        self.workers: list[WorkerProcess] = []

    async def pair(self, source_step_s: float = 0.0) -> tuple[WorkerProcess, WorkerProcess]:
        """A source and a destination."""
        return await asyncio.gather(
            self.start("p0", Role.PREFILL, source_step_s), self.start("d0", Role.DECODE)
        )

    async def start(self, name: str, role: Role, step_s: float = 0.0) -> WorkerProcess:
        place = self.places.get(name, Place())
        settings = {
            "config": self.config,
            "worker": name,
            "host": place.address,
            "role": role,
            "run_dir": str(self.run_dir),
            "head_dim": self.head_dim,
            "step_s": step_s,
            "free_packing": self.free_packing,
        }
        process = await asyncio.create_subprocess_exec(
            *place.entrance,
            sys.executable,
            str(Path(__file__).parent / "worker_process.py"),
            msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", **self.environment},
        )
        assert process.stdout
        async with asyncio.timeout(START_S_MAX):
            line = await process.stdout.readline()
        worker = WorkerProcess(process, msgspec.json.decode(line, type=Endpoint))
        self.workers.append(worker)
        await self.door.dial(worker.endpoint)
        return worker

    def request(self, name: str, prompt_tokens: int = 200, max_tokens: int = 12) -> RequestSpec:
        prompt = [(7 * i + len(name) + i // 5) % 60 for i in range(prompt_tokens)]
        sampling = Sampling(max_tokens=max_tokens, temperature=1.0, seed=7)
        return RequestSpec(RequestId(name), prompt, sampling)

    def expected(self, spec: RequestSpec) -> list[int]:
        """The output of one engine that has never heard of hand-offs."""
        runner = ToyRunner(self.config.engine, head_dim=self.head_dim)
        engine = Engine(runner, self.config.engine, MonotonicClock())
        engine.handle(Run(spec, Epoch(0), "nobody"))
        tokens: list[int] = []
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, Said) and isinstance(event.message, Tokens):
                    tokens += event.message.tokens
        return tokens

    async def end(self) -> None:
        """Stops every worker that lives, after nothing is kept there any more."""
        await self.door.close()
        for worker in self.workers:
            if worker.process.returncode is None and not worker.killed:
                await worker.idle()
                await worker.stop()

    async def clear(self) -> None:
        """Whatever has happened, no worker outlives the test."""
        for worker in self.workers:
            if worker.process.returncode is None:
                worker.signal(signal.SIGKILL)
            await worker.process.wait()
