"""Watches over one worker process that is up."""

import asyncio
from collections.abc import Callable

from tercet.cluster.fleet import WorkerProcess
from tercet.config import ControlConfig


async def lost(process: WorkerProcess, control: ControlConfig, drains: Callable[[], None]) -> str:
    """Return the reason when the worker ends, or answers no health check in time. Raises PeerLost, PeerRefused.

    `drains` is called after every check in which it says that it wants to be emptied, whoever told it so.
    """
    ended = asyncio.ensure_future(process.wait())
    try:
        while not ended.done():
            try:
                async with asyncio.timeout(control.health_timeout_s):
                    draining = await process.health()
            except TimeoutError:
                return f"no answer within {control.health_timeout_s:g} s"
            if draining:
                drains()
            await asyncio.wait({ended}, timeout=control.health_period_s)
        await ended
        return "ended by itself"
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
