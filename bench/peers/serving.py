"""Claim: a whole Tercet cluster serves at least as fast as `vllm serve`, and 1P+1D at least 1.2 times as fast as vLLM's own.

    python bench/peers/serving.py --peers FOLDER [--models 50M 10M] [--dtypes float32 bfloat16] [--at-once 1 16] [--rounds 3]

Random Llamas, 128 tokens in, 64 out, greedy, streamed over `/v1/completions` to one client, everything on this machine. Two
comparisons: one worker against one `vllm serve`; and one prefill and one decode worker against vLLM's P/D over NIXL behind
vllm-router. Aggregated, each side is tried with engines of one and of two threads, and its better one counts. Sides take turns, all
of them once in every round, each time with new servers; in a round all get the same prompts, and their tokens are compared. README.md
says how peers are installed; one that is missing is skipped and said so. Writes bench/results/serving.json.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from deployments import (
    AT_ONCE_MAX,
    Deploy,
    Deployed,
    Job,
    our_version,
    tercet,
    vllm,
    vllm_apart,
    vllm_apart_version,
    vllm_version,
)
from idleness import until_idle
from serving_figures import OURS, Ratio, Round, Row, Setting, ratios_of, round_of, rows_of, show
from stage import Unavailable
from streams import Tokens, ask_all
from word_model import SHAPES, Shape, kv_bytes_per_token, save_llama

RESULT = Path(__file__).parent.parent / "results" / "serving.json"
INPUT_TOKENS, OUTPUT_TOKENS = 128, 64
AGGREGATED, APART = "aggregated", "1P+1D"

console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Side:
    """Who serves, in which deployment."""

    name: str
    deployment: str
    deploy: Deploy
    version: Callable[[Path | None], str]
    """Raises Unavailable where it is not installed."""


SIDES = (
    Side(OURS, AGGREGATED, partial(tercet, prefill=0), our_version),
    Side("vllm serve", AGGREGATED, vllm, vllm_version),
    Side(OURS, APART, partial(tercet, prefill=1), our_version),
    Side("vllm P/D + vllm-router", APART, vllm_apart, vllm_apart_version),
)


def prompts(shape: Shape, number: int, at_once: int, count: int) -> list[Tokens]:
    """Those of one round, the same for all sides."""
    dice = random.Random(f"{number} {at_once}")
    return [dice.choices(range(1, shape.vocabulary), k=INPUT_TOKENS) for _ in range(count)]


@asynccontextmanager
async def warm(deploy: Deploy, job: Job, shape: Shape) -> AsyncIterator[Deployed]:
    """A side that has served a batch already."""
    async with deploy(job) as deployed:
        warming = prompts(shape, 0, 0, 2 * AT_ONCE_MAX)
        await ask_all(deployed.url, warming, at_once=AT_ONCE_MAX, output_tokens=OUTPUT_TOKENS)
        yield deployed


async def measure(
    side: Side, job: Job, model: str, number: int, args: argparse.Namespace
) -> list[Round]:
    """One side, once, at every number of clients."""
    rounds, shape = [], SHAPES[model]
    async with warm(side.deploy, job, shape) as deployed:
        for at_once in args.at_once:
            idle_before = await until_idle(args.idle_wait_s)
            asked = prompts(shape, number, at_once, max(args.requests, 4 * at_once))
            cpu_before_s = deployed.cpu_s()
            answers = await ask_all(
                deployed.url, asked, at_once=at_once, output_tokens=OUTPUT_TOKENS
            )
            cpu_s = deployed.cpu_s() - cpu_before_s
            setting = Setting(side.deployment, model, job.dtype, at_once)
            one = round_of(setting, side.name, job.threads, number, answers, cpu_s, idle_before)
            console.log(
                f"round {number} {' '.join(map(str, setting))} {side.name}, {job.threads} threads:"
                f" {one.tokens_per_s:.0f} tokens/s"
            )
            rounds.append(one)
    return rounds


async def compare(args: argparse.Namespace) -> tuple[list[Round], dict[str, str]]:
    """Every side once in each round, and why some were skipped."""
    rounds: list[Round] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="serving-") as directory:
        for model in args.models:
            folder = Path(directory) / model
            save_llama(folder, SHAPES[model])
            for number, dtype, side, threads in stints(args):
                name = f"{model} {dtype} {side.deployment} {side.name}, {threads} threads"
                if name in skipped:
                    continue
                bytes_per_token = kv_bytes_per_token(SHAPES[model], dtype)
                job = Job(folder, dtype, bytes_per_token, threads, args.peers)
                try:
                    side.version(args.peers)
                    rounds += await measure(side, job, model, number, args)
                except (Unavailable, OSError, TimeoutError) as exc:
                    skipped[name] = f"{type(exc).__name__}: {exc}"
                    console.log(f"{name} is skipped: {exc}", markup=False)
    return rounds, skipped


def stints(args: argparse.Namespace) -> Iterator[tuple[int, str, Side, int]]:
    """Round, type, side and threads of everything to measure of one model, in order."""
    for dtype in args.dtypes:
        for number in range(1, args.rounds + 1):
            for side in SIDES:
                if side.deployment in args.deployments:
                    for threads in args.threads if side.deployment == AGGREGATED else [1]:
                        yield number, dtype, side, threads


def versions(peers: Path | None) -> list[str]:
    """Of everybody who takes part."""
    found = [f"python {platform.python_version()}"]
    for side in SIDES:
        with suppress(Unavailable):
            found.append(side.version(peers))
    return list(dict.fromkeys(found))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    both = [AGGREGATED, APART]
    parser.add_argument("--deployments", nargs="+", choices=both, default=both)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["50M", "10M"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--at-once", nargs="+", type=int, default=[1, AT_ONCE_MAX])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="when aggregated")
    parser.add_argument("--requests", type=int, default=16, help="or 4 for each client, if more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--idle-wait-s", type=float, default=20.0, help="before each run, for others to be done"
    )
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args()


async def run(args: argparse.Namespace) -> tuple[list[Round], dict[str, str]]:
    """`compare`, which ends its servers also when this process is told to end."""
    comparing = asyncio.create_task(compare(args))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, comparing.cancel)
    return await comparing


def main() -> None:
    args = parsed()
    rounds, skipped = asyncio.run(run(args))
    rows = rows_of(rounds)
    ratios = ratios_of(rows, rounds)
    show(rows, ratios)
    for side, reason in skipped.items():
        print(f"skipped {side}: {reason}")
    shape = {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS, "requests": args.requests}
    report = {
        "versions": versions(args.peers),
        "machine": f"{os.cpu_count()} CPUs",
        "options": shape | {"rounds": args.rounds},
        "skipped": skipped,
        "ratios": [named(ratio) for ratio in ratios],
        "rows": [named(row) for row in rows],
    }
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


def named(figures: Row | Ratio) -> dict[str, object]:
    """One flat object, for JSON."""
    flat = asdict(figures)
    return flat.pop("setting")._asdict() | flat


if __name__ == "__main__":
    main()
