"""Claim: admitting by the predicted peak keeps requests from giving way without leaving memory idle.

    python bench/admission.py [--seconds 300] [--json bench/results/admission.json]

The real scheduler and block pool on a virtual clock, steps as long as an 8 B model's on an H100, with every way of admitting. All
requests are drawn by seed and are the same for all. A request that gives way computes its tokens again, and its client sees a
gap.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tercet.config import EngineConfig
from tercet.workers.admission import ADMISSIONS
from virtual_worker import VirtualWorker, Visit, quantile

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class Regime:
    """One workload. Lengths are medians of log-normal distributions; outputs end at `max_tokens`, which everybody asks for."""

    name: str
    per_s: float
    prompt: int
    output: int
    spread: float = 1.2
    max_tokens: int = 4096
    later_output: int = 0
    """The median of the second half, if it is another one."""
    tight: bool = False
    """Everybody asks for a fifth more than they use instead of the most."""
    blocks: int = 1024


REGIMES = (
    Regime("heavy tail", per_s=6.0, prompt=400, output=150),
    Regime("long answers", per_s=1.8, prompt=200, output=700, spread=0.9),
    Regime("outputs grow fivefold", per_s=4.0, prompt=400, output=80, later_output=400),
    Regime("max_tokens is known", per_s=6.0, prompt=400, output=150, tight=True),
    Regime("short answers", per_s=5.0, prompt=2500, output=30, spread=0.5, max_tokens=512),
)


@dataclass(frozen=True)
class Row:
    """One regime, admitted in one way."""

    regime: str
    admission: str
    served: int
    tokens_per_s: float
    """Output tokens of requests that were served to their end."""
    preemptions: int
    recomputed_tokens: int
    """Prompt and output tokens computed more than once."""
    memory: float
    """Mean share of the blocks that are in use."""
    ttft_s_p50: float
    ttft_s_p99: float
    itl_ms_p50: float
    itl_ms_p99: float
    gap_s_p99: float
    """The longest pause of a request between two of its tokens."""


def visits(regime: Regime, seconds: float, seed: int) -> list[Visit]:
    dice = np.random.default_rng(seed)
    made, at_s = [], 0.0
    while (at_s := at_s + dice.exponential(1 / regime.per_s)) < seconds:
        late = regime.later_output and at_s > seconds / 2
        median = regime.later_output if late else regime.output
        prompt = min(int(dice.lognormal(np.log(regime.prompt), 0.7)) + 1, 8192)
        output = min(int(dice.lognormal(np.log(median), regime.spread)) + 1, regime.max_tokens)
        most = output * 6 // 5 + 1 if regime.tight else regime.max_tokens
        made.append(Visit(at_s, prompt, output, most))
    return made


def measure(regime: Regime, admission: str, seconds: float, seed: int) -> Row:
    config = EngineConfig(
        block_tokens=BLOCK_TOKENS,
        kv_blocks=regime.blocks,
        step_tokens_max=2048,
        running_max=256,
        waiting_max=10**6,
        admission=admission,
    )
    worker = VirtualWorker(config)
    worker.run(visits(regime, seconds, seed), seconds)
    return summary(regime, admission, worker, seconds)


def summary(regime: Regime, admission: str, worker: VirtualWorker, seconds: float) -> Row:
    served = [visit for _, visit in worker.served]
    gaps_s = [gap for visit in served for gap in visit.gaps_s]
    least = sum(visit.prompt_tokens + visit.output_tokens - 1 for visit in served)
    ttfts_s = [visit.ttft_s for visit in served]
    return Row(
        regime=regime.name,
        admission=admission,
        served=len(served),
        tokens_per_s=sum(visit.output_tokens for visit in served) / seconds,
        preemptions=sum(sequence.preemptions for sequence, _ in worker.served),
        recomputed_tokens=sum(worker.computed_of[sequence] for sequence, _ in worker.served)
        - least,
        memory=float(np.mean(worker.used)) / regime.blocks,
        ttft_s_p50=quantile(ttfts_s, 50),
        ttft_s_p99=quantile(ttfts_s, 99),
        itl_ms_p50=1e3 * quantile(gaps_s, 50),
        itl_ms_p99=1e3 * quantile(gaps_s, 99),
        gap_s_p99=quantile([max(visit.gaps_s, default=0.0) for visit in served], 99),
    )


def show(rows: list[Row]) -> None:
    table = Table(title="Ways of admitting")
    heads = ("served", "tokens/s", "preempted", "recomputed", "memory", "TTFT p50 / p99 s")
    table.add_column("regime")
    table.add_column("admission")
    for head in (*heads, "ITL p50 / p99 ms", "longest pause p99 s"):
        table.add_column(head, justify="right")
    for row in rows:
        table.add_row(
            row.regime,
            row.admission,
            f"{row.served:,}",
            f"{row.tokens_per_s:,.0f}",
            f"{row.preemptions:,}",
            f"{row.recomputed_tokens:,}",
            f"{row.memory:.0%}",
            f"{row.ttft_s_p50:.2f} / {row.ttft_s_p99:.2f}",
            f"{row.itl_ms_p50:.1f} / {row.itl_ms_p99:.1f}",
            f"{row.gap_s_p99:.2f}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=300.0, help="of virtual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = [
        measure(regime, admission, arguments.seconds, arguments.seed)
        for regime in REGIMES
        for admission in ADMISSIONS
    ]
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
