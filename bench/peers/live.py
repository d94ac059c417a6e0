"""Our front door beside the routers other people use: same trace, equally timed workers, same client, in one run.

    python bench/peers/live.py --trace conversation_trace.jsonl --peers FOLDER [--sides tercet:dualmap sglang:cache_aware …]

Prints how much of the prompts was found in workers' caches and how long first tokens took, and writes
bench/results/peers.json. Sides take turns, all of them once in every round, each time with new workers. A side is
`system:policy[,option=value…]`: an option of ours is one of the policy's, an option of a peer one of its command line.
`--set front_door.in_flight_max=64` changes our cluster file. With `--stretch 4` requests, workers, our promise and our
reports are all four times as slow and the figures are divided by four, so that a busy machine disturbs them less.
README.md says how peers are installed and what is compared.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from figures import Run, run_of, show
from idleness import until_idle
from our_side import OURS, our_side
from peer_routers import peer_side, version_of
from replay import replay, warm
from stage import Stage, Unavailable, Variant
from tercet import __version__
from timing import Timing
from turns import Turn, different_blocks, turns

RESULT = Path(__file__).parent.parent / "results" / "peers.json"
SIDES = (
    "tercet:dualmap",
    "tercet:dualmap,granule_tokens=16",
    "tercet:prefix_affinity",
    "tercet:min_ttft",
    "tercet:round_robin",
    "sglang:cache_aware",
    "sglang:power_of_two",
    "sglang:round_robin",
    "vllm:cache_aware",
    "vllm:consistent_hash",
)
WARM_REQUESTS = 8
STEP_TOKENS = 64
"""Tokens in a step of our workers: small, because their requests get first tokens at the ends of steps, those of the mock
workers at their own ends."""

console = Console(stderr=True)


async def measure(
    variant: Variant, stage: Stage, sequence: list[Turn], idle_wait_s_max: float
) -> Run:
    """One side, once. Raises Unavailable, or what a process or a connection that failed raises."""
    side = our_side if variant.system == OURS else peer_side
    async with side(variant, stage) as running:
        await warm(running.url, WARM_REQUESTS)
        before = (await running.facts()).per_worker
        idle_before = await until_idle(idle_wait_s_max)
        replies = await replay(running.url, sequence)
        facts = await running.facts()
    per_worker = [now - then for now, then in zip(facts.per_worker, before, strict=True)]
    return run_of(str(variant), replies, per_worker, idle_before, facts.more, stage.stretch)


async def compare(
    variants: list[Variant], stage: Stage, sequence: list[Turn], args: argparse.Namespace
) -> tuple[list[Run], dict[str, str]]:
    """Every side once in each round, and why some were skipped."""
    runs: list[Run] = []
    skipped: dict[str, str] = {}
    for number in range(args.rounds):
        for variant in variants:
            if str(variant) in skipped:
                continue
            try:
                run = await measure(variant, stage, sequence, args.idle_wait_s)
            except (Unavailable, OSError, TimeoutError) as exc:
                skipped[str(variant)] = f"{type(exc).__name__}: {exc}"
                console.log(f"{variant} is skipped: {exc}")
                continue
            runs.append(run)
            console.log(
                f"round {number + 1} {variant}: hit {run.hit_rate:.1%},"
                f" TTFT mean {run.ttft_ms_mean:.1f} ms, {run.errors} errors {run.first_error}"
            )
    return runs, skipped


def versions(variants: list[Variant], stage: Stage) -> list[str]:
    """Of everybody who took part."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    found = {f"{OURS} {__version__} {commit}".strip(), f"python {platform.python_version()}"}
    for variant in variants:
        with suppress(Unavailable):
            found.add(version_of(variant, stage))
    return sorted(found)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trace", type=Path, required=True, help="a Mooncake-format trace")
    parser.add_argument("--peers", type=Path, help="folder of the peers' virtual environments")
    parser.add_argument(
        "--sides", nargs="+", type=Variant.parse, default=[*map(Variant.parse, SIDES)]
    )
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--speedup", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--stretch", type=float, default=1.0, help="slow motion, for busy machines")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--idle-wait-s", type=float, default=20.0, help="before each run, for others to be done"
    )
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="SECTION.KEY=VALUE", dest="settings"
    )
    parser.add_argument("--json", type=Path, default=RESULT)
    return parser.parse_args()


def main() -> None:
    args = parsed()
    sequence = turns(args.trace, speedup=args.speedup / args.stretch, requests=args.requests)
    settings = {"engine.step_tokens_max": str(STEP_TOKENS)}
    settings |= dict(setting.split("=", 1) for setting in args.settings)
    stage = Stage(
        timing=Timing().stretched(args.stretch),
        workers=args.workers,
        blocks=different_blocks(sequence),
        records_max=len(sequence) + 2 * WARM_REQUESTS,
        peers=args.peers,
        stretch=args.stretch,
        settings=settings,
    )
    runs, skipped = asyncio.run(compare(args.sides, stage, sequence, args))
    title = (
        f"{args.trace.name}: {len(sequence)} requests at {args.speedup:g}x, {args.workers} workers"
    )
    if runs:
        show(runs, title)
    for side, reason in skipped.items():
        print(f"skipped {side}: {reason}")
    report = {
        "title": title,
        "versions": versions(args.sides, stage),
        "machine": f"{os.cpu_count()} CPUs",
        "stretch": args.stretch,
        "settings": settings,
        "skipped": skipped,
        "runs": [asdict(run) for run in runs],
    }
    args.json.parent.mkdir(exist_ok=True)
    args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
