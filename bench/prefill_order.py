"""Claim: short prompts need not wait for long ones, and long ones need not starve for it.

    python bench/prefill_order.py [--seconds 200] [--json bench/results/prefill_order.json]

A prefill worker on a virtual clock, with the real scheduler and steps as long as an 8 B model's on an H100: nine prompts of ten
have some 300 tokens, the tenth some 12,000, and arrivals make for a given share of what it can do. In the order of arrival, by
slack, and by slack with interjections between two of 32 layers; the same prompts for all.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tercet.config import EngineConfig
from tercet.simulator.engine_model import EngineModel
from tercet.workers.pace import StepContents
from virtual_worker import VirtualWorker, Visit, quantile

LAYERS = 32
SHORT, LONG, LONG_SHARE = 300, 12_000, 0.1
SHORT_MAX = 2000
ORDERS = {"arrival": (0.0, 0), "slack": (8.0, 0), "slack, between layers": (8.0, LAYERS)}
"""How far a request may be passed, and between how many layers others may come."""


@dataclass(frozen=True)
class Row:
    """One load, step size and order. Slowdown: the time to the first token as a multiple of that on an idle worker."""

    load: float
    step_tokens_max: int
    order: str
    served: int
    short_ttft_ms_p50: float
    short_ttft_ms_p99: float
    long_ttft_s_p50: float
    long_ttft_s_p99: float
    long_slowdown_p99: float


def alone_s(tokens: int) -> float:
    """How long an idle worker takes."""
    contents = StepContents(prefill_tokens=tokens, prefill_token_context=tokens * (tokens + 1) // 2)
    return EngineModel().at_speed(1.0).seconds(contents)


def visits(load: float, seconds: float, seed: int) -> list[Visit]:
    dice = np.random.default_rng(seed)
    lengths = [prompt_tokens(dice) for _ in range(200_000)]
    mean_s = float(np.mean([alone_s(tokens) for tokens in lengths]))
    made, at_s = [], 0.0
    for tokens in lengths:
        at_s += dice.exponential(mean_s / load)
        if at_s > seconds:
            return made
        made.append(Visit(at_s, tokens, 1, 1))
    raise AssertionError("too few prompts were drawn")


def prompt_tokens(dice: np.random.Generator) -> int:
    if dice.random() < LONG_SHARE:
        return int(np.clip(dice.lognormal(np.log(LONG), 0.5), SHORT_MAX + 1, 32_768))
    return int(np.clip(dice.lognormal(np.log(SHORT), 0.7), 1, SHORT_MAX))


def measure(load: float, step_tokens: int, order: str, seconds: float, seed: int) -> Row:
    stretch_max, layers = ORDERS[order]
    config = EngineConfig(
        block_tokens=64,
        kv_blocks=16_384,
        step_tokens_max=step_tokens,
        running_max=256,
        waiting_max=10**6,
        prefill_stretch_max=stretch_max,
    )
    worker = VirtualWorker(config, layers=layers)
    worker.run(visits(load, seconds, seed), seconds)
    served = [visit for _, visit in worker.served]
    short_s = [visit.ttft_s for visit in served if visit.prompt_tokens <= SHORT_MAX]
    long = [visit for visit in served if visit.prompt_tokens > SHORT_MAX]
    return Row(
        load=load,
        step_tokens_max=step_tokens,
        order=order,
        served=len(served),
        short_ttft_ms_p50=1e3 * quantile(short_s, 50),
        short_ttft_ms_p99=1e3 * quantile(short_s, 99),
        long_ttft_s_p50=quantile([visit.ttft_s for visit in long], 50),
        long_ttft_s_p99=quantile([visit.ttft_s for visit in long], 99),
        long_slowdown_p99=quantile([v.ttft_s / alone_s(v.prompt_tokens) for v in long], 99),
    )


def show(rows: list[Row]) -> None:
    table = Table(title="Times to the first token of short and long prompts")
    heads = ("load", "step", "order", "served", "short p50 / p99 ms", "long p50 / p99 s")
    for head in (*heads, "slowdown of long p99"):
        table.add_column(head, justify="left" if head == "order" else "right")
    for row in rows:
        table.add_row(
            f"{row.load:.0%}",
            f"{row.step_tokens_max:,}",
            row.order,
            f"{row.served:,}",
            f"{row.short_ttft_ms_p50:,.0f} / {row.short_ttft_ms_p99:,.0f}",
            f"{row.long_ttft_s_p50:.2f} / {row.long_ttft_s_p99:.2f}",
            f"{row.long_slowdown_p99:.1f}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=200.0, help="of virtual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = [
        measure(load, step_tokens, order, arguments.seconds, arguments.seed)
        for load in (0.6, 0.85)
        for step_tokens in (2048, 32_768)
        for order in ORDERS
    ]
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
