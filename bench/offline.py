"""Claim: with all requests at hand, output comes at two thirds of what the machine could give at most, three times as fast as
from transformers. Third of three calls, under ten minutes.

    python bench/offline.py [--dry-run] [--seconds 420] [--read-tbs 4.67] [--product-tf 790]

The whole engine, without sockets: models of random weights, greedy, every request to its full length. The floor is one pass of
every prompt through the products, and decode steps of the largest batch that running_max allows, each reading weights and KV
once. Beside it transformers' own continuous batching with the same weights. Prints a table and writes gpu_offline.json to $OUT
or bench/results.
"""

import os
import sys

if "--dry-run" in sys.argv:  # read when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig

from gpu_measure import Machine, Report, Table, parser
from random_model import Shape, open_runner, random_model, shape_of
from tercet.clock import MonotonicClock
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.checkpoint import Checkpoint
from tercet.workers.engine import Engine
from tercet.workers.events import Ended, Run
from tercet.workers.runner import Runner

COLUMNS = ("model", "load", "who", "requests", "s", "output tok/s", "all tok/s", "% of floor")
PEER_REQUESTS = 64
"""So many of a load are enough to see the peer's rate, and leave time for the others."""


@dataclass(frozen=True, slots=True)
class Load:
    """Prompts, and how many tokens each is to be answered with."""

    name: str
    prompts: Sequence[list[int]]
    outputs: Sequence[int]

    @classmethod
    def even(cls, name: str, requests: int, prompt: int, output: int, vocab: int) -> "Load":
        dice = random.Random(0)
        prompts = [[dice.randrange(vocab) for _ in range(prompt)] for _ in range(requests)]
        return cls(name, prompts, [output] * requests)

    @classmethod
    def nano(cls, requests: int, most: int, vocab: int) -> "Load":
        """Lengths from 100 to 1024 at random, as nano-vllm measures itself."""
        dice = random.Random(0)
        least = min(100, most)
        prompts = [
            [dice.randrange(vocab) for _ in range(dice.randint(least, most))]
            for _ in range(requests)
        ]
        return cls("nano", prompts, [dice.randint(least, most) for _ in range(requests)])

    def first(self, requests: int) -> "Load":
        return Load(self.name, self.prompts[:requests], self.outputs[:requests])

    @property
    def prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))

    @property
    def output_tokens(self) -> int:
        return sum(self.outputs)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the machine can do at most."""

    read_tbs: float
    product_tf: float

    def floor_s(self, load: Load, shape: Shape, running: int, item: int) -> float:
        """No schedule of batches of `running` is done earlier."""
        flop = 2.0 * load.prompt_tokens * shape.linear_parameters
        kv_tokens = 0.0
        for prompt, output in zip(load.prompts, load.outputs, strict=True):
            flop += shape.attention_flop * len(prompt) ** 2 / 2
            kv_tokens += output * (len(prompt) + output / 2)
        steps = max(load.output_tokens / min(running, len(load.prompts)), max(load.outputs))
        flop += 2.0 * load.output_tokens * shape.decode_weight_bytes / item
        reads = steps * shape.decode_weight_bytes + kv_tokens * shape.kv_bytes
        decode_flop = 2.0 * load.output_tokens * shape.decode_weight_bytes / item
        prefill_s = (flop - decode_flop) / self.product_tf / 1e12
        weights_s = max(steps * shape.decode_weight_bytes / self.read_tbs, decode_flop / self.product_tf) / 1e12  # fmt: skip
        return prefill_s + weights_s + (reads - steps * shape.decode_weight_bytes) / self.read_tbs / 1e12  # fmt: skip


def ours_s(runner: Runner, config: EngineConfig, load: Load) -> float:
    """Asserts that every request has come to its end."""
    engine = Engine(runner, config, MonotonicClock())
    started_s = time.perf_counter()
    for i, (prompt, output) in enumerate(zip(load.prompts, load.outputs, strict=True)):
        sampling = Sampling(max_tokens=output, ignore_eos=True)
        engine.handle(Run(RequestSpec(RequestId(f"r{i}"), prompt, sampling), FIRST_EPOCH, "bench"))
    ended = 0
    while engine.has_work:
        ended += sum(isinstance(event, Ended) for event in engine.step())
    assert ended == len(load.prompts), (ended, len(load.prompts))
    return time.perf_counter() - started_s


def transformers_s(checkpoint: Checkpoint, load: Load) -> float:
    """Continuous batching as transformers has it; all outputs of a load are equally long."""
    model, (output,) = checkpoint.model, set(load.outputs)
    model.set_attn_implementation("paged|sdpa")
    settings = GenerationConfig(
        max_new_tokens=output, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    started_s = time.perf_counter()
    answers = model.generate_batch([list(prompt) for prompt in load.prompts], settings)
    took_s = time.perf_counter() - started_s
    drawn = sum(len(answer.generated_tokens) for answer in answers.values())
    assert drawn == load.output_tokens, (drawn, load.output_tokens)
    return took_s


def measure(report: Report, table: Table, name: str, ceiling: Ceiling, loads: list[Load], config: EngineConfig, context: int) -> None:  # fmt: skip
    machine = report.machine
    dtype = torch.float32 if machine.dry else torch.bfloat16
    checkpoint = random_model(name, context, machine.device, dtype)
    shape = shape_of(checkpoint)
    runner = open_runner(checkpoint, config)

    def tell(who: str, load: Load, took_s: float) -> None:
        floor_s = ceiling.floor_s(load, shape, config.running_max, dtype.itemsize)
        every = load.prompt_tokens + load.output_tokens
        table.add(name, load.name, who, len(load.prompts), took_s, load.output_tokens / took_s, every / took_s, 100 * floor_s / took_s)  # fmt: skip

    for load in loads:
        if report.time_is_up:
            report.notes.append(f"{name}, {load.name} was left out: the time was up")
            continue
        with report.section(f"{name}, {load.name}, ours"):
            if not machine.dry:
                ours_s(runner, config, load.first(2))  # what is compiled late
            tell("tercet", load, ours_s(runner, config, load))
    del runner
    if machine.dry:
        return
    torch.cuda.empty_cache()
    for load in loads:
        if len(set(load.outputs)) == 1 and not report.time_is_up:
            with report.section(f"{name}, {load.name}, transformers"):
                part = load.first(PEER_REQUESTS)
                tell("transformers CB", part, transformers_s(checkpoint, part))


def main() -> int:
    made = parser(__doc__, "gpu_offline", 420)
    made.add_argument("--read-tbs", type=float, default=4.67)
    made.add_argument("--product-tf", type=float, default=790.0)
    options = made.parse_args()
    torch.manual_seed(0)
    report = Report(Machine.here(options.dry_run), options.seconds, options.json)
    table = report.table("Offline", *COLUMNS)
    ceiling = Ceiling(options.read_tbs, options.product_tf)
    if report.machine.dry:
        config = EngineConfig(block_tokens=16, kv_blocks=16, step_tokens_max=16, running_max=2)
        loads = [Load.even("6/2", 2, 6, 2, 64), Load.nano(2, 3, 64)]
        measure(report, table, "tiny", ceiling, loads, config, 64)
        return report.finish()
    config = EngineConfig(
        block_tokens=64, kv_blocks=0, step_tokens_max=8192, running_max=256, waiting_max=4096,
        start_within_s=1e9, memory_share=0.85,
    )  # fmt: skip
    small = [Load.nano(256, 1024, 10_000)]
    large = [
        Load.even("2048/128", 256, 2048, 128, 10_000),
        Load.even("1k/1k", 256, 1000, 1000, 10_000),
        Load.even("128/2048", 256, 128, 2048, 10_000),
        Load.nano(256, 1024, 10_000),
    ]
    for name, loads in (("Qwen3-0.6B", small), ("Llama-3.1-8B", large)):
        with report.section(name):
            measure(report, table, name, ceiling, loads, config, 4096)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
