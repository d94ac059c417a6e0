"""A real worker around a runner that only takes its time.

python our_worker.py SETTINGS     prints its endpoint as JSON, ends with stdin
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig
from tercet.ids import WorkerId, new_incarnation
from tercet.role import Role
from tercet.workers.worker import Worker
from timed_runner import StepClock, TimedRunner
from timing import Timing


class Settings(msgspec.Struct):
    """One worker's process."""

    config: ClusterConfig
    timing: Timing
    worker: WorkerId
    vocab_size: int
    run_dir: str


async def main(settings: Settings) -> None:
    clock = StepClock()
    worker = Worker(
        settings.config,
        settings.worker,
        Role.DECODE,
        new_incarnation(),
        host="127.0.0.1",
        run_dir=Path(settings.run_dir),
        load_runner=lambda _, engine: TimedRunner(
            engine, settings.timing, settings.vocab_size, clock
        ),
        clock=clock,
    )
    print(msgspec.json.encode(await worker.start()).decode(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Settings)))
