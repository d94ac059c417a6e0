"""What a live move costs: how long the moving request pauses, by its length, and how much others slow down meanwhile.

python bench/moves.py [--contexts 1024 4096 16384] [--moves 20] [--json FILE]

Two real workers on this machine, each with one thread, and a front door; one request goes back and forth between them by
NIXL while it decodes. The stall is what its client sees: from the last token of one worker to the first of the other. It is
to be held against the pause between two tokens of the same request when nothing moves, two of which a move may take, or 25 ms.
Two short requests decode at either worker all the while; theirs are the times between tokens while something is
copied, and while nothing is.
"""

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from checkpoint import llama
from latency_added import TOKEN_IDS, quantile
from real_worker import Settings, WorkerProcess
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    TransferConfig,
)
from tercet.errors import MoveRefused
from tercet.ids import FrontDoorId, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.front_door import FrontDoor
from tercet.router.generation import Generation
from tercet.router.record import RequestRecord
from tercet.wire import Membership

HERE, THERE = WorkerId("decode-0"), WorkerId("decode-1")
OTHERS = 2
QUIET_S = 0.4
"""Between two moves: as long as a few tokens take, to compare with."""
STALL_S_MAX = 0.025


@dataclass(frozen=True)
class Row:
    """One length. Milliseconds."""

    context_tokens: int
    moves: int
    itl_ms_p50: float
    stall_ms_p50: float
    stall_ms_p99: float
    allowed_ms: float
    took_ms_p50: float
    others_ms: float
    others_copying_ms: float


@dataclass
class Timeline:
    """When tokens of one request came, and in which of these times something was being moved."""

    generation: Generation | None = None
    at_s: list[float] = field(default_factory=list)
    copying: list[tuple[float, float]] = field(default_factory=list)

    def gaps(self, *, copying: bool) -> list[float]:
        """Times between tokens that lie within a copy, or touch none."""
        found = []
        for before_s, after_s in zip(self.at_s, self.at_s[1:], strict=False):
            touched = any(a < after_s and before_s < b for a, b in self.copying)
            if touched is copying:
                found.append(after_s - before_s)
        return found


def config_of(checkpoint: Path, context_tokens: int) -> ClusterConfig:
    blocks = 2 * (context_tokens // 16) + 512
    return ClusterConfig(
        model=ModelConfig(path=str(checkpoint)),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=2)),
        engine=EngineConfig(kv_blocks=blocks, block_tokens=16, threads=1, start_within_s=600.0),
        transfer=TransferConfig(net_devices="lo"),
    )


@contextlib.asynccontextmanager
async def pair(config: ClusterConfig) -> AsyncIterator[FrontDoor]:
    """Two workers, and a front door that sees them."""
    with tempfile.TemporaryDirectory() as run_dir:
        async with contextlib.AsyncExitStack() as stack:
            endpoints = [
                await stack.enter_async_context(
                    WorkerProcess(Settings(config, name, Role.DECODE, run_dir))
                )
                for name in (HERE, THERE)
            ]
            door = FrontDoor(config, FrontDoorId("bench"))
            await door.start()
            door.update(Membership(1, tuple(endpoints)))
            await until(lambda: all(seen.connected for seen in door.status().workers))
            try:
                yield door
            finally:
                await door.stop()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 -- nobody tells
        await asyncio.sleep(0.001)


async def stream(door: FrontDoor, spec: RequestSpec, seen: Timeline, over: asyncio.Event) -> None:
    """Notes when tokens come, until it is over."""
    async with door.generate(spec) as generation:
        seen.generation = generation
        async for piece in generation:
            seen.at_s.extend([time.perf_counter()] * len(piece.tokens))
            if over.is_set():
                break


def request(name: str, tokens: int, dice: random.Random) -> RequestSpec:
    prompt = dice.choices(TOKEN_IDS, k=tokens)
    return RequestSpec(RequestId(name), prompt, Sampling(max_tokens=100_000, ignore_eos=True))


async def begin(
    door: FrontDoor, group: asyncio.TaskGroup, spec: RequestSpec, over: asyncio.Event
) -> Timeline:
    seen = Timeline()
    group.create_task(stream(door, spec, seen, over))
    await until(lambda: len(seen.at_s) >= 3)
    return seen


async def measure(checkpoint: Path, context_tokens: int, moves: int) -> Row:
    dice, over = random.Random(context_tokens), asyncio.Event()
    async with pair(config_of(checkpoint, context_tokens)) as door, asyncio.TaskGroup() as group:
        others = []
        for number in range(2 * OTHERS):
            spec = request(f"other-{number}", 64, dice)
            others.append(await begin(door, group, spec, over))
            with contextlib.suppress(MoveRefused):  # it is there already
                door.relocate(spec.id, (HERE, THERE)[number % 2])
        spec = request("moving", context_tokens, dice)
        moving = await begin(door, group, spec, over)
        await asyncio.sleep(2 * QUIET_S)
        for _ in track(range(moves), f"{context_tokens} tokens", transient=True):
            await move(door, spec.id, moving)
            await asyncio.sleep(QUIET_S)
        for other in others:
            other.copying = moving.copying
        record = record_of(moving)
        over.set()
    notes = [note for note in record.moves if not note.reason]
    itl = statistics.median(moving.gaps(copying=False))
    stalls = [note.stall_ms for note in notes if note.stall_ms is not None]
    return Row(
        context_tokens=context_tokens,
        moves=len(notes),
        itl_ms_p50=1e3 * itl,
        stall_ms_p50=statistics.median(stalls),
        stall_ms_p99=quantile(stalls, 0.99),
        allowed_ms=1e3 * max(2 * itl, STALL_S_MAX),
        took_ms_p50=statistics.median(note.took_ms for note in notes if note.took_ms),
        others_ms=1e3 * mean(others, copying=False),
        others_copying_ms=1e3 * mean(others, copying=True),
    )


def record_of(seen: Timeline) -> RequestRecord:
    assert seen.generation is not None, "it has not begun"
    return seen.generation.record


async def move(door: FrontDoor, request: RequestId, seen: Timeline) -> None:
    """One move, to its end."""
    began_s = time.perf_counter()
    door.relocate(request)
    await until(lambda: record_of(seen).moves[-1].took_ms is not None)
    seen.copying.append((began_s, time.perf_counter()))


def mean(others: list[Timeline], *, copying: bool) -> float:
    gaps = [gap for other in others for gap in other.gaps(copying=copying)]
    return statistics.fmean(gaps) if gaps else float("nan")


def show(rows: list[Row]) -> None:
    table = Table(title="A running request moves to another worker and back (milliseconds)")
    for name in (
        "context",
        "moves",
        "ITL p50",
        "stall p50",
        "stall p99",
        "allowed",
        "took p50",
        "others' ITL",
        "… copying",
    ):
        table.add_column(name, justify="right")
    for row in rows:
        figures = list(asdict(row).values())
        table.add_row(f"{row.context_tokens:,}", str(row.moves), *(f"{x:.1f}" for x in figures[2:]))
    Console().print(table)
    ratio = rows[-1].stall_ms_p50 / rows[0].stall_ms_p50
    Console().print(
        f"stall at {rows[-1].context_tokens:,} / at {rows[0].context_tokens:,}: {ratio:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 4096, 16384])
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        positions = max(arguments.contexts) + 8192
        checkpoint = llama(Path(folder), hidden=arguments.hidden, layers=2, positions=positions)
        rows = [
            asyncio.run(measure(checkpoint, context, arguments.moves))
            for context in arguments.contexts
        ]
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
