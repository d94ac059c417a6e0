"""A real front door with its HTTP API, in front of workers that run already; its tokenizer makes each word one token.

python our_door.py SETTINGS     prints its port, answers each line on stdin with its counts as JSON, ends with stdin
"""

import asyncio
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import tokenizers
import uvicorn
from tokenizers import models, pre_tokenizers

from tercet.config import ClusterConfig
from tercet.ids import FrontDoorId
from tercet.router.front_door import FrontDoor
from tercet.router.history import History
from tercet.router.http import build_api
from tercet.router.preparation import ModelCard
from tercet.router.service import Service
from tercet.router.tokenizer import Tokenizer
from tercet.wire import Endpoint, Membership
from turns import ANSWER, vocabulary

READY_S_MAX = 20.0
POLL_S = 0.05


class Settings(msgspec.Struct):
    """The front door's process."""

    config: ClusterConfig
    workers: tuple[Endpoint, ...]
    blocks: int
    """Different blocks in the prompts to come."""
    records_max: int


class Counts(msgspec.Struct):
    """What became of the requests so far."""

    workers: dict[str, int]
    reasons: dict[str, int]
    """The policy's own words; empty where it has one reason only."""
    predicted_cached_tokens: int
    cached_tokens: int
    queued: int
    """Requests that waited at the door for more than a millisecond before they were sent."""
    queue_ms_max: float


def word_tokenizer(blocks: int) -> Tokenizer:
    """One token a word."""
    words = {word: number for number, word in enumerate(vocabulary(blocks))}
    core = tokenizers.Tokenizer(models.WordLevel(words, unk_token=ANSWER))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(core, frozenset())


def service_of(config: ClusterConfig, door: FrontDoor, tokenizer: Tokenizer) -> Service:
    engine, limits = config.engine, config.front_door
    return Service(
        ModelCard(config.model.name, 0, engine.kv_blocks * engine.block_tokens, tokenizer.size),
        door,
        tokenizer,
        None,
        calls_max=limits.in_flight_max + limits.queue_max,
        body_bytes_max=limits.body_bytes_max,
    )


def counts(history: History, records_max: int) -> Counts:
    records = history.recent(records_max)
    first = [record.choices[0] for record in records if record.choices]
    return Counts(
        workers=dict(Counter(record.decode_worker or "nobody" for record in records)),
        reasons=dict(Counter(choice.reason for choice in first)),
        predicted_cached_tokens=sum(record.predicted_cached_tokens for record in records),
        cached_tokens=sum(record.cached_tokens for record in records),
        queued=sum(record.queue_ms > 1.0 for record in records),
        queue_ms_max=max((record.queue_ms for record in records), default=0.0),
    )


@contextmanager
def listener() -> Iterator[socket.socket]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        yield listening


def usable(door: FrontDoor) -> int:
    """Workers that may be asked."""
    return sum(seen.connected and not seen.suspect for seen in door.status().workers)


async def until(condition: Callable[[], bool]) -> None:
    """Raises TimeoutError after `READY_S_MAX`."""
    async with asyncio.timeout(READY_S_MAX):
        while not condition():  # noqa: ASYNC110 - a plain figure of another part
            await asyncio.sleep(POLL_S)


async def main(settings: Settings) -> None:
    door = FrontDoor(settings.config, FrontDoorId("door"))
    door.history = History(settings.records_max)
    door.update(Membership(1, settings.workers))
    await door.start()
    await until(lambda: usable(door) == len(settings.workers))
    service = service_of(settings.config, door, word_tokenizer(settings.blocks))
    with listener() as listening:
        http = uvicorn.Config(build_api(lambda: service), log_level="warning", lifespan="off")
        server = uvicorn.Server(http)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        await until(lambda: server.started)
        print(listening.getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            now = counts(door.history, settings.records_max)
            print(msgspec.json.encode(now).decode(), flush=True)
        server.should_exit = True
        await serving
    await door.stop()


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Settings)))
