"""The requests of a chaos run: a trace scaled down to a small model, the same ones again and again, each with its true answer."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tercet.simulator.traces import ReadOptions, Trace, Workload, generated, load_trace

MADE_UP = {
    "clients": [
        {
            "name": "chat",
            "starts_per_s": 1.0,
            "input": {"is": "lognormal", "p50": 3000, "p99": 20000},
            "output": {"is": "lognormal", "p50": 300, "p99": 1200},
            "turns": {"is": "fixed", "value": 3},
            "system": {"count": 4, "tokens": 2048},
        }
    ]
}
"""Conversations of three turns, for who has no trace at hand."""
TOKEN_IDS = range(40, 600)


@dataclass(frozen=True)
class Job:
    """One request: a prompt that shares its beginning with others as the trace says, greedy or seeded."""

    number: int
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int


def trace_of(path: Path | None) -> Trace:
    """An open loop; the made-up one without a path."""
    if path is None:
        return generated(
            msgspec.convert(MADE_UP, Workload), ReadOptions(block_tokens=512, span_s=300)
        )
    trace = load_trace(path)
    assert isinstance(trace, Trace), "sessions that wait for answers cannot be replayed at random"
    return trace


def jobs_of(
    trace: Trace, count: int, *, block_tokens: int, prompt_tokens_max: int, output_scale: float
) -> list[Job]:
    """The first `count` requests of the trace; each of its blocks becomes `block_tokens` tokens, drawn by the block's name."""
    dice = random.Random(0)
    jobs = []
    for number, arrival in enumerate(trace.arrivals[:count]):
        tokens = [token for name in arrival.names for token in _block(name, block_tokens)]
        tail = dice.choices(TOKEN_IDS, k=dice.randint(1, block_tokens))
        prompt = (*tokens[: prompt_tokens_max - len(tail)], *tail)
        output = max(2, round(arrival.output_tokens * output_scale))
        jobs.append(Job(number, prompt, output, dice.choice((0.0, 0.0, 0.8)), number))
    return jobs


def _block(name: int, tokens: int) -> Sequence[int]:
    return random.Random(name).choices(TOKEN_IDS, k=tokens)
