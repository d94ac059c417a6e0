"""Processes of a comparison: started with a first line to wait for or not, and ended whatever happens."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

START_S_MAX = 60.0
STOP_S_MAX = 10.0

Process = asyncio.subprocess.Process


class Child:
    """One of our own scripts, which says a line when it is ready and another one whenever it is asked."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.greeting = ""

    async def line(self) -> str:
        assert self._process.stdout is not None, "has no pipe"
        async with asyncio.timeout(START_S_MAX):
            line = await self._process.stdout.readline()
        if not line:
            raise ChildProcessError("a process of the comparison ended; its stderr says why")
        return line.decode().strip()

    async def ask(self) -> str:
        assert self._process.stdin is not None, "has no pipe"
        self._process.stdin.write(b"\n")
        return await self.line()


@asynccontextmanager
async def script(name: str, settings: str) -> AsyncIterator[Child]:
    """A script beside this one, in our own Python; it ends with its stdin."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent / name),
        settings,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        child = Child(process)
        child.greeting = await child.line()
        yield child
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(STOP_S_MAX):
            await process.wait()
    finally:
        await _end(process, signal.SIGKILL)


@asynccontextmanager
async def program(command: Sequence[str], log: Path) -> AsyncIterator[Process]:
    """Somebody else's program, with its output in `log`; told to end by SIGTERM."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            await _end(process, signal.SIGTERM)


async def _end(process: Process, first: signal.Signals) -> None:
    """The process and whatever it started."""
    for number in (first, signal.SIGKILL):
        if process.returncode is not None:
            return
        os.killpg(process.pid, number)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                await process.wait()
        except TimeoutError:
            continue
