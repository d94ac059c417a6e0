"""The Ray actor around a worker: a name, a process and a few methods; everything else is the worker's.

Importing this does not load torch, because the control plane and the front door handle the class without running it.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import ray

from tercet.config import ClusterConfig
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint
from tercet.workers.status import WorkerStatus


class ProcessStatus(msgspec.Struct, frozen=True):
    """What the process says about itself and about the worker in it."""

    pid: int
    up_s: float
    """Seconds since the worker listens."""
    worker: WorkerStatus


class WorkerActor:
    """Called through Ray; structs travel as msgpack. A worker starts once in the life of its actor."""

    def __init__(self, config: bytes, worker: str, incarnation: str, run_dir: str) -> None:
        from tercet.workers.worker import Worker  # noqa: PLC0415 -- loads torch, see above

        self._run_dir = _private(Path(run_dir))
        self._worker = Worker(
            msgspec.msgpack.decode(config, type=ClusterConfig),
            WorkerId(worker),
            Role(worker.rpartition("-")[0]),
            Incarnation(incarnation),
            host=ray.util.get_node_ip_address(),
            run_dir=self._run_dir,
        )
        self._started: asyncio.Task[Endpoint] | None = None
        self._endpoint: Endpoint | None = None
        self._up_since_s = 0.0

    async def start(self) -> bytes:
        """Load the model and listen; a second call waits for the first. Returns the `Endpoint`."""
        if self._started is None:
            self._started = asyncio.create_task(self._worker.start())
        endpoint = await asyncio.shield(self._started)
        if self._endpoint is None:
            self._endpoint, self._up_since_s = endpoint, time.monotonic()
        return msgspec.msgpack.encode(endpoint)

    async def endpoint(self) -> bytes | None:
        """The `Endpoint`, once it has started."""
        return None if self._endpoint is None else msgspec.msgpack.encode(self._endpoint)

    async def wait(self) -> None:
        """Return when the worker was stopped; raise when it cannot go on."""
        await self._worker.wait()

    async def health(self) -> bool:
        """Whether it was told to drain; raises what `wait` raises when the worker cannot go on."""
        self._worker.check()
        return self._worker.draining

    async def status(self) -> bytes:
        """A `ProcessStatus`; callable once started."""
        up_s = time.monotonic() - self._up_since_s
        return msgspec.msgpack.encode(ProcessStatus(os.getpid(), up_s, self._worker.status()))

    async def drain(self) -> None:
        """Want no more work, and to be rid of what it has; callable once started."""
        self._worker.drain()

    async def relieve(self, to: str, tokens: int) -> None:
        """Give requests of at most so many tokens to that worker, if their front doors agree; callable once started."""
        self._worker.relieve(tokens, WorkerId(to))

    async def stop(self) -> None:
        """End the worker in good order; the process is its caller's to kill."""
        await self._worker.stop()
        with suppress(
            OSError
        ):  # not empty while other workers are on this node, gone when the last one was quicker
            self._run_dir.rmdir()


def _private(directory: Path) -> Path:
    """The directory, made if need be; refused when somebody else could replace the sockets in it."""
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{directory} is open to others than us; remove it")
    return directory
