"""A real worker in a process of its own, without Ray.

python real_worker.py SETTINGS     prints its endpoint as JSON, ends with stdin
"""

import asyncio
import os
import sys
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig
from tercet.ids import WorkerId, new_incarnation
from tercet.role import Role
from tercet.wire import Endpoint
from tercet.workers.worker import Worker


class Settings(msgspec.Struct):
    """What one process is told."""

    config: ClusterConfig
    worker: WorkerId
    role: Role
    run_dir: str


class WorkerProcess:
    """One such process, from its parent's side; a context."""

    def __init__(self, settings: Settings, threads: int = 1) -> None:
        self._settings, self._threads = settings, threads

    async def __aenter__(self) -> Endpoint:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            msgspec.json.encode(self._settings).decode(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(self._threads)},
        )
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        return msgspec.json.decode(line, type=Endpoint)

    async def __aexit__(self, *exc: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def main(settings: Settings) -> None:
    worker = Worker(
        settings.config,
        settings.worker,
        settings.role,
        new_incarnation(),
        host="127.0.0.1",
        run_dir=Path(settings.run_dir),
    )
    print(msgspec.json.encode(await worker.start()).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Settings)))
