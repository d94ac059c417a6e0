"""Question: is it worth while to wait for more short prompts before computing some?

    python bench/waiting_window.py [--seconds 60] [--json bench/results/waiting_window.json]

A prefill worker on a virtual clock, as in `prefill_order.py`, that when idle waits for a window after the first short prompt, or
until it has a given number of them (LAPS, arXiv 2601.11589). Loads are shares of what the worker can do one prompt at a time.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from prefill_order import alone_s
from tercet.config import EngineConfig
from virtual_worker import VirtualWorker, Visit, quantile

LAYERS = 32
DEPTH = 8
WINDOWS_MS = (0.0, 2.0, 4.0, 8.0, 16.0)
SHORT_MAX = 256


class WaitingWorker(VirtualWorker):
    """Does not begin before the window is over or enough have come, unless a long prompt is there."""

    window_s = 0.0

    def run(self, visits: list[Visit], until_s: float) -> None:
        self._coming = sorted(visits, key=lambda visit: -visit.at_s)
        while self.now_s < until_s:
            self._let_in()
            self._wait()
            batch = self.scheduler.schedule()
            if batch.chunks:
                self._step(batch.chunks)
            else:
                self.now_s = self._coming[-1].at_s if self._coming else until_s

    def _wait(self) -> None:
        scheduler = self.scheduler
        if scheduler.running or not scheduler.waiting:
            return
        end_s = min(self._visits[s].at_s for s in scheduler.waiting) + self.window_s
        while self._coming and self._coming[-1].at_s < end_s and self._waits_on():
            self.now_s = max(self.now_s, self._coming[-1].at_s)
            self._let_in()
        if self._waits_on():
            self.now_s = max(self.now_s, end_s)

    def _waits_on(self) -> bool:
        waiting = self.scheduler.waiting
        return len(waiting) < DEPTH and all(s.remaining <= SHORT_MAX for s in waiting)


@dataclass(frozen=True)
class Row:
    """One mixture, load and window."""

    long_share: float
    load: float
    window_ms: float
    steps: int
    short_ttft_ms_p50: float
    short_ttft_ms_p99: float
    long_ttft_ms_p50: float | None
    long_ttft_ms_p99: float | None


def visits(long_share: float, load: float, seconds: float, seed: int) -> list[Visit]:
    dice = np.random.default_rng(seed)
    lengths = [
        int(dice.uniform(2000, 8000))
        if dice.random() < long_share
        else int(dice.uniform(16, SHORT_MAX))
        for _ in range(100_000)
    ]
    mean_s = float(np.mean([alone_s(tokens) for tokens in lengths]))
    times_s = np.cumsum(dice.exponential(mean_s / load, len(lengths)))
    return [
        Visit(float(at_s), tokens, 1, 1)
        for at_s, tokens in zip(times_s, lengths, strict=True)
        if at_s < seconds
    ]


def measure(long_share: float, load: float, window_ms: float, seconds: float, seed: int) -> Row:
    config = EngineConfig(
        block_tokens=64, kv_blocks=8192, step_tokens_max=8192, running_max=256, waiting_max=10**6
    )
    worker = WaitingWorker(config, layers=LAYERS)
    worker.window_s = window_ms / 1e3
    worker.run(visits(long_share, load, seconds, seed), seconds)
    served = [visit for _, visit in worker.served]
    short_ms = [1e3 * v.ttft_s for v in served if v.prompt_tokens <= SHORT_MAX]
    long_ms = [1e3 * v.ttft_s for v in served if v.prompt_tokens > SHORT_MAX]
    return Row(
        long_share=long_share,
        load=load,
        window_ms=window_ms,
        steps=len(worker.used),
        short_ttft_ms_p50=quantile(short_ms, 50),
        short_ttft_ms_p99=quantile(short_ms, 99),
        long_ttft_ms_p50=quantile(long_ms, 50) if long_ms else None,
        long_ttft_ms_p99=quantile(long_ms, 99) if long_ms else None,
    )


def show(rows: list[Row]) -> None:
    table = Table(title="Waiting for more short prompts")
    for head in ("long", "load", "window ms", "steps", "short p50 / p99 ms", "long p50 / p99 ms"):
        table.add_column(head, justify="right")
    for row in rows:
        long = (
            f"{row.long_ttft_ms_p50:,.0f} / {row.long_ttft_ms_p99:,.0f}" if row.long_share else ""
        )
        table.add_row(
            f"{row.long_share:.0%}",
            f"{row.load:.0%}",
            f"{row.window_ms:g}",
            f"{row.steps:,}",
            f"{row.short_ttft_ms_p50:.1f} / {row.short_ttft_ms_p99:.1f}",
            long,
        )
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of virtual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = [
        measure(long_share, load, window_ms, arguments.seconds, arguments.seed)
        for long_share in (0.0, 0.1)
        for load in (0.5, 0.9, 1.2)
        for window_ms in WINDOWS_MS
    ]
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
