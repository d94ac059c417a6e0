"""Claim: what the engine itself adds to a step is small beside any model: at most 150 µs for 16 running decodes.

    python bench/engine_overhead.py [--vocab 32000] [--steps 300]

The model is replaced by one that returns ready logits, so that a step's time is scheduling, block accounting, sampling and
events. Prints a table and writes bench/results/engine_overhead.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

from tercet.clock import MonotonicClock
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.engine import Engine
from tercet.workers.events import Run
from tercet.workers.runner import BetweenLayers, Slice, go_on
from tercet.workers.toy_runner import ToyRunner

RESULTS = Path(__file__).parent / "results" / "engine_overhead.json"
BATCHES = (1, 16, 64)
SAMPLINGS = {
    "greedy": Sampling(),
    "temperature": Sampling(temperature=0.7),
    "top-p": Sampling(temperature=0.7, top_p=0.9),
    "top-k, top-p": Sampling(temperature=0.7, top_k=50, top_p=0.9),
    "penalties": Sampling(temperature=0.7, repetition_penalty=1.1, presence_penalty=0.5),
}


class Result(msgspec.Struct, frozen=True):
    """Median and 90th percentile of a step without its model."""

    sampling: str
    batch: int
    p50_us: float
    p90_us: float


class ReadyLogits(ToyRunner):
    """Computes nothing: the logits of every step lie ready, peaked as those of a real model are."""

    def __init__(self, config: EngineConfig, vocab: int) -> None:
        super().__init__(config, vocab_size=vocab, context_tokens_max=10**6)
        generator = torch.Generator().manual_seed(0)
        self._ready = torch.randn(max(BATCHES), vocab, generator=generator) * 4

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        return self._ready[: sum(part.sample for part in slices)]


def measure(name: str, batch: int, vocab: int, steps: int) -> Result:
    """Steps of `batch` requests that decode from a prompt of 256 tokens on."""
    config = EngineConfig(kv_blocks=4096, step_tokens_max=4096, running_max=64)
    engine = Engine(ReadyLogits(config, vocab), config, MonotonicClock())
    for i in range(batch):
        sampling = msgspec.structs.replace(SAMPLINGS[name], max_tokens=10**5, seed=i)
        spec = RequestSpec(RequestId(f"r{i}"), [i + 1] * 256, sampling)
        engine.handle(Run(spec, FIRST_EPOCH, "bench"))
    while engine.load().pending_prefill_tokens:
        engine.step()
    durations_us = []
    for _ in range(steps):
        started_s = time.perf_counter()
        engine.step()
        durations_us.append((time.perf_counter() - started_s) * 1e6)
    p90_us = statistics.quantiles(durations_us, n=10)[-1]
    return Result(name, batch, round(statistics.median(durations_us), 1), round(p90_us, 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'sampling':<14}{'batch':>6}{'p50 µs':>10}{'p90 µs':>10}")
    results = []
    for name in SAMPLINGS:
        for batch in BATCHES:
            steps = options.steps if name == "greedy" else options.steps // 6
            result = measure(name, batch, options.vocab, steps)
            results.append(result)
            print(f"{name:<14}{batch:>6}{result.p50_us:>10.0f}{result.p90_us:>10.0f}", flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    report = {"vocab": options.vocab, "results": msgspec.to_builtins(results)}
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
