"""A worker with a toy runner, or with a model where there is one, alone in its process: `worker_process.py SETTINGS` prints its endpoint, then obeys stdin.

Each line on stdin is answered by one line of JSON: `status`. The end of stdin stops the worker.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from tercet.config import ClusterConfig, EngineConfig, ModelConfig
from tercet.ids import WorkerId, new_incarnation
from tercet.role import Role
from tercet.workers.kv_pool import KvPool
from tercet.workers.runner import Runner
from tercet.workers.toy_runner import ToyRunner
from tercet.workers.transfer.codec_choice import Codec, Profile
from tercet.workers.transfer.packing import measured_profile
from tercet.workers.worker import Worker, load_model

NO_MODEL = "/nowhere"


class Settings(msgspec.Struct):
    config: ClusterConfig
    worker: WorkerId
    role: Role
    host: str
    run_dir: str
    head_dim: int
    step_s: float
    free_packing: bool
    """Codecs are thought to take no time, so that they are chosen whatever the link."""


def free(kv: KvPool, codec: Codec) -> Profile:
    return Profile(codec, ratio=3.9, bytes_per_s=1e18)


def say(message: object) -> None:
    print(msgspec.json.encode(message).decode(), flush=True)


async def main(settings: Settings) -> None:
    def toy(model: ModelConfig, engine: EngineConfig) -> Runner:
        return ToyRunner(engine, head_dim=settings.head_dim, step_s=settings.step_s)

    worker = Worker(
        settings.config,
        settings.worker,
        settings.role,
        new_incarnation(),
        host=settings.host,
        run_dir=Path(settings.run_dir),
        load_runner=toy if settings.config.model.path == NO_MODEL else load_model,
        measure_codec=free if settings.free_packing else measured_profile,
    )
    say(await worker.start())
    while line := await asyncio.to_thread(sys.stdin.readline):
        assert line == "status\n", line
        say(worker.status())
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Settings)))
