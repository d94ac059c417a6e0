"""How much of the machine is free: a shared machine is measured best while nobody else uses it."""

import asyncio
import time
from pathlib import Path

SAMPLE_S = 2.0
IDLE_SHARE_WANTED = 0.7


def _jiffies() -> tuple[int, int]:
    """Idle ones and all, since the start, over all processors."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return fields[3] + fields[4], sum(fields)


async def idle_share() -> float:
    """Over the next seconds."""
    idle, total = _jiffies()
    await asyncio.sleep(SAMPLE_S)
    idle_now, total_now = _jiffies()
    return (idle_now - idle) / max(1, total_now - total)


async def until_idle(wait_s_max: float) -> float:
    """Wait until most of the machine is free, but not for ever; returns the share that was free at last."""
    give_up_s = time.monotonic() + wait_s_max
    share = await idle_share()
    while share < IDLE_SHARE_WANTED and time.monotonic() < give_up_s:
        share = await idle_share()
    return share
