"""Watches over one worker process that is up."""

import asyncio

from tercet.cluster.fleet import WorkerProcess
from tercet.config import ControlConfig


async def lost(process: WorkerProcess, control: ControlConfig) -> str:
    """Return the reason when the worker ends, or answers no health check in time. Raises PeerLost, PeerRefused."""
    ended = asyncio.ensure_future(process.wait())
    try:
        while not (await asyncio.wait({ended}, timeout=control.health_period_s))[0]:
            try:
                async with asyncio.timeout(control.health_timeout_s):
                    await process.health()
            except TimeoutError:
                return f"no answer within {control.health_timeout_s:g} s"
        await ended
        return "ended by itself"
    finally:
        ended.cancel()
        await asyncio.gather(ended, return_exceptions=True)
