"""Servers of a comparison: started on ports of their own, told to end, and waited for with everything they have started."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from stage import Unavailable
from tercet.cluster.process_tree import descendants, end, process

START_S_MAX = 600.0
STOP_S_MAX = 30.0
POLL_S = 0.2
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAID_CHARS = 1500


class Server:
    """One process and those below it."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        """Processor time of all of them so far. What one that has ended used counts with its parent."""
        pids = [self.pid, *(each.pid for each in descendants(self.pid))]
        return sum(map(_ticks, pids)) / TICKS_PER_S

    def check(self) -> None:
        """Raises Unavailable, with its last words, when it has ended."""
        if self._process.returncode is not None:
            raise Unavailable(f"it ended with code {self._process.returncode}: {self.last_words()}")

    async def until_said(self, words: str) -> None:
        """Raises Unavailable when it ends, or does not say so in time."""
        try:
            async with asyncio.timeout(START_S_MAX):
                while words not in self._log.read_text(errors="replace"):
                    self.check()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise Unavailable(f"not ready within {START_S_MAX:g} s: {self.last_words()}") from None

    def last_words(self) -> str:
        return self._log.read_text(errors="replace")[-SAID_CHARS:]


@asynccontextmanager
async def server(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """A server with its output in `log` while the context lasts. SIGTERM goes to it alone, for the ones below it to be ended
    in good order; whatever is left of them is killed."""
    with log.open("wb") as output:
        started = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=environment,
        )
    try:
        yield Server(started, log)
    finally:
        family = descendants(started.pid)
        if (root := process(started.pid)) is not None:
            family.add(root)
        with suppress(ProcessLookupError):
            started.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_S_MAX):
                await started.wait()
        end(family, 2 * POLL_S)
        await started.wait()


async def until_ready(url: str, model: str, servers: Sequence[Server]) -> None:
    """Until a completion is answered. Raises Unavailable when a server ends, or not in time."""
    body = {"model": model, "prompt": [1, 2, 3], "max_tokens": 2, "ignore_eos": True}
    last = "nothing"
    timeout = aiohttp.ClientTimeout(START_S_MAX)
    try:
        async with asyncio.timeout(START_S_MAX), aiohttp.ClientSession(timeout=timeout) as http:
            while True:
                for each in servers:
                    each.check()
                try:
                    async with http.post(f"{url}/v1/completions", json=body) as answer:
                        if answer.status == 200:
                            return
                        last = f"{answer.status} {(await answer.text())[:200]}"
                except aiohttp.ClientError as exc:
                    last = str(exc)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        said = " | ".join(each.last_words() for each in servers)
        raise Unavailable(f"not ready within {START_S_MAX:g} s, {last}: {said}") from None


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0  # it has ended, and counts with its parent
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[11:15]))  # utime, stime, and both of children that were waited for
