"""How a worker is emptied before it is stopped: it tells the front doors that it wants to be rid of what it has, and they move
it. Here is only waited."""

import asyncio
from collections.abc import Callable

from tercet.cluster.fleet import WorkerProcess
from tercet.cluster.status import ProcessFigures

POLL_S = 0.2
EMPTY_POLLS = 2
"""In a row: between two counters of a worker a request may be on its way from one to the other."""


async def drained(process: WorkerProcess, is_used: Callable[[], bool], limit_s: float) -> str:
    """Tell the worker to drain, and wait; returns what was left when time was up, or nothing once it is empty.

    `is_used` says whether a front door may have requests there. Raises PeerLost, PeerRefused.
    """
    left = "it did not answer"
    try:
        async with asyncio.timeout(limit_s):
            await process.drain()
            empty = 0
            while empty < EMPTY_POLLS:
                await asyncio.sleep(POLL_S)
                left = _left(await process.figures(), is_used())
                empty = 0 if left else empty + 1
    except TimeoutError:
        return left
    return ""


def _left(figures: ProcessFigures, is_used: bool) -> str:
    left = figures.worker.left if figures.worker is not None else "its figures"
    return left or ("requests that a front door has sent there" if is_used else "")
