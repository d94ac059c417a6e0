"""Whether keeping the KV of agents that wait for a tool helps: the real block pool and scheduler, with retention and without.

No model: a step takes `FIXED_S` and more for each prefilled and each decoded token, on a virtual clock. The workload is that of
`agents.py`; every number is drawn by seed and is the same with and without.
"""

import argparse
import heapq
import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from agents import BLOCK_TOKENS, REGIMES, Agent, Call, Regime, others
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.block_pool import BlockPool
from tercet.workers.pace import StepContents
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Sequence

FIXED_S, PREFILL_TOKEN_S, DECODE_S = 0.012, 25e-6, 0.1e-3


@dataclass
class Worker:
    """The part of an engine that decides, on a virtual clock."""

    scheduler: Scheduler
    calls: dict[Sequence, Call] = field(default_factory=dict)
    ended: list[tuple[Sequence, Call]] = field(default_factory=list)
    _coming: list[tuple[float, int, Call]] = field(default_factory=list)
    _arrivals: int = 0
    now_s: float = 0.0

    def expect(self, call: Call, at_s: float) -> None:
        call.at_s = at_s
        self._arrivals += 1
        heapq.heappush(self._coming, (at_s, self._arrivals, call))

    def run(self, until_s: float) -> None:
        while self.now_s < until_s:
            while self._coming and self._coming[0][0] <= self.now_s:
                self._enter(*heapq.heappop(self._coming)[1:])
            self.scheduler.pool.expire(self.now_s)
            if not self._step():
                self.now_s = self._coming[0][0] if self._coming else until_s
        self.scheduler.check_integrity()

    def _enter(self, arrival: int, call: Call) -> None:
        spec = RequestSpec(
            RequestId(f"r{arrival}"),
            call.prompt,
            Sampling(max_tokens=len(call.output)),
            kv_ttl_s=call.ttl_s,
            session=call.session,
        )
        sequence = Sequence(spec, FIRST_EPOCH, "bench", arrival, list(call.prompt))
        self.calls[sequence] = call
        assert self.scheduler.enqueue(sequence) is None

    def _step(self) -> bool:
        batch = self.scheduler.schedule()
        contents = StepContents.of(batch.chunks)
        self.now_s += (
            FIXED_S + PREFILL_TOKEN_S * contents.prefill_tokens + DECODE_S * contents.decodes
        )
        for chunk in batch.chunks:
            completes = chunk.completes
            self.scheduler.advance(chunk.sequence, chunk.sequence.computed + chunk.tokens)
            if completes:
                self._draw(chunk.sequence)
        return bool(batch.chunks)

    def _draw(self, sequence: Sequence) -> None:
        call = self.calls[sequence]
        call.first_s = call.first_s or self.now_s
        sequence.tokens.append(call.output[sequence.output_tokens])
        if sequence.output_tokens < len(call.output):
            return
        self.scheduler.remove(sequence)
        self.ended.append((sequence, self.calls.pop(sequence)))
        if call.agent is not None:
            self.expect(call.agent.next_call(), self.now_s + call.agent.pause_s())


@dataclass(frozen=True)
class Row:
    """One regime, with retention or without."""

    regime: str
    retention: bool
    turns: int
    """Turns of agents that were served."""
    hit_rate: float | None
    """Of the tokens that earlier turns had left in full blocks; None without next turns."""
    recomputed_tokens: int
    """The rest of those."""
    turn_ttft_s_p50: float
    turn_ttft_s_p99: float
    others: int
    others_hit_rate: float
    """Of all their prompt tokens."""
    others_ttft_s_p50: float
    others_ttft_s_p99: float
    preemptions: int


def measure(regime: Regime, *, retention: bool, seconds: float, seed: int) -> Row:
    config = EngineConfig(
        block_tokens=BLOCK_TOKENS,
        kv_blocks=regime.blocks,
        step_tokens_max=2048,
        running_max=128,
        waiting_max=10**6,
        retention_s_max=600.0 if retention else 0.0,
    )
    generations = np.zeros(regime.blocks, dtype=np.uint64)
    retained_max = int(regime.share * regime.blocks)
    pool = BlockPool(regime.blocks, generations, retained_max)
    worker = Worker(Scheduler(config, pool))
    for number in range(regime.agents):
        agent = Agent(number, regime, seed)
        worker.expect(agent.next_call(), agent.pause_s())
    for call in others(regime, seconds, seed):
        worker.expect(call, call.at_s)
    worker.run(seconds)
    return summary(regime, retention, worker.ended)


def summary(regime: Regime, retention: bool, ended: list[tuple[Sequence, Call]]) -> Row:
    turns = [(sequence, call) for sequence, call in ended if call.agent is not None]
    single = [(sequence, call) for sequence, call in ended if call.agent is None]
    known = sum(call.known_tokens for _, call in turns)
    found = sum(min(sequence.cached_tokens or 0, call.known_tokens) for sequence, call in turns)
    turn_s, single_s = quantiles(turns), quantiles(single)
    return Row(
        regime=regime.name,
        retention=retention,
        turns=len(turns),
        hit_rate=found / known if known else None,
        recomputed_tokens=known - found,
        turn_ttft_s_p50=turn_s[49],
        turn_ttft_s_p99=turn_s[98],
        others=len(single),
        others_hit_rate=sum(s.cached_tokens or 0 for s, _ in single)
        / sum(s.prompt_tokens for s, _ in single),
        others_ttft_s_p50=single_s[49],
        others_ttft_s_p99=single_s[98],
        preemptions=sum(sequence.preemptions for sequence, _ in ended),
    )


def quantiles(served: list[tuple[Sequence, Call]]) -> list[float]:
    waits_s = [call.first_s - call.at_s for _, call in served if call.first_s is not None]
    return statistics.quantiles(waits_s, n=100)


def show(rows: list[Row]) -> None:
    table = Table(title="Turns of agents, and requests of others; times to first token")
    heads = ("regime", "retention", "turns", "hit rate", "recomputed", "p50 / p99 s")
    for head in (*heads, "others", "hit rate", "p50 / p99 s", "preempted"):
        table.add_column(head, justify="left" if head == "regime" else "right")
    for row in rows:
        table.add_row(
            row.regime,
            "on" if row.retention else "off",
            f"{row.turns:,}",
            "" if row.hit_rate is None else f"{row.hit_rate:.1%}",
            f"{row.recomputed_tokens:,}",
            f"{row.turn_ttft_s_p50:.2f} / {row.turn_ttft_s_p99:.2f}",
            f"{row.others:,}",
            f"{row.others_hit_rate:.1%}",
            f"{row.others_ttft_s_p50:.2f} / {row.others_ttft_s_p99:.2f}",
            f"{row.preemptions:,}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="of virtual time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    rows = [
        measure(regime, retention=on, seconds=arguments.seconds, seed=arguments.seed)
        for regime in REGIMES
        for on in (False, True)
    ]
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
