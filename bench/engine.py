"""Claim: a decode step costs little more than reading weights and KV once. Second of three calls, under ten minutes.

    python bench/engine.py [--model Llama-3.1-8B] [--dry-run] [--seconds 420] [--read-tbs 4.67] [--product-tf 790]

A model of random weights decodes from KV that is filled directly, batch by batch, as the engine would drive it: each step is
launched while the one before runs. Then prefills, and what each technique is worth: graphs, running ahead, the kernel for few
rows. The floor of a step is its weights and its KV at the rate of reading that bench/kernels.py measured, or its products at
their rate. Prints tables and writes gpu_engine.json to $OUT or bench/results.
"""

import os
import sys

if "--dry-run" in sys.argv:  # read when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"

import itertools
import time
from dataclasses import dataclass

import msgspec
import torch
from torch.profiler import ProfilerActivity, profile

from gpu_measure import Machine, Report, Table, Timing, median, parser
from random_model import Shape, open_runner, random_model, shape_of, tables
from tercet.clock import MonotonicClock
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.engine import Engine
from tercet.workers.events import Run
from tercet.workers.gpu.captured import Eager
from tercet.workers.gpu.decoder import buckets
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.runner import Draws, Slice
from tercet.workers.trial import Trial

GRID = [(1, 1024), (1, 4096), (1, 8192), (8, 4096), (32, 1024), (32, 4096), (32, 8192), (128, 1024), (128, 4096), (256, 1024)]  # fmt: skip
PROMPTS = (1024, 4096, 8192, 32768)
PROFILED = {(1, 1024), (32, 1024), (128, 1024)}
PROFILED_STEPS, PROFILED_KERNELS = 5, 14
COPY_TBS = 4.3
"""What a copy reaches, reads and writes counted: the usual measure. Reading alone is faster."""
WARM = Sampling(temperature=1.0, top_p=0.9)


@dataclass
class Bench:
    """A runner, and what its figures are held against."""

    runner: GpuRunner
    engine: EngineConfig
    shape: Shape
    read_tbs: float
    product_tf: float
    steps: int
    grid: list[tuple[int, int]]
    prompts: tuple[int, ...]

    def decode_floor_ms(self, batch: int, context: int, read_tbs: float) -> float:
        weights = self.shape.decode_weight_bytes
        products_ms = (
            2 * batch * weights / self.runner.kv.geometry.dtype.itemsize / self.product_tf / 1e9
        )
        kv_ms = batch * context * self.shape.kv_bytes / read_tbs / 1e9
        return max(weights / read_tbs / 1e9, products_ms) + kv_ms

    def prefill_floor_ms(self, tokens: int) -> float:
        flop = 2 * tokens * self.shape.linear_parameters
        flop += self.shape.attention_flop * tokens * (tokens + 1) / 2
        return flop / self.product_tf / 1e9


class Batch:
    """Requests that decode from random KV on; `context` tokens are there at the middle of the run."""

    _first_free = itertools.count(0, 1000)
    """No request is another batch's: who is known keeps what the device has of it."""

    def __init__(self, bench: Bench, batch: int, context: int, sampling: Sampling) -> None:
        self._first = next(self._first_free)
        runner, geometry = bench.runner, bench.runner.kv.geometry
        self._runner, self._samplings = runner, [sampling] * batch
        self._start = max(1, context - bench.steps // 2)
        room = [self._start + 2 * bench.steps + 8] * batch
        self._tables = tables(room, runner.kv.blocks, geometry.block_tokens)
        self._done = 0

    def launch(self) -> Draws:
        """The next step of all."""
        start, fed = self._start + self._done, self._done > 0
        slices = [
            Slice([] if fed else [7], start, blocks, True, self._first + request, fed)
            for request, blocks in enumerate(self._tables)
        ]
        self._done += 1
        return self._runner.launch(slices, self._samplings)


def stepped(batch: Batch, steps: int, *, ahead: bool) -> Timing:
    """Times between tokens, as the host has them."""
    samples_us, before = [], batch.launch()
    if not ahead:
        before.wait()
    last_s = time.perf_counter()
    for _ in range(steps):
        after = batch.launch()
        (before if ahead else after).wait()
        before, now_s = after, time.perf_counter()
        samples_us.append((now_s - last_s) * 1e6)
        last_s = now_s
    before.wait()
    return Timing.of(samples_us[len(samples_us) // 10 :])


def busy_us(machine: Machine, batch: Batch, steps: int) -> float:
    """What a step takes on the device alone: from the first kernel to the last, with nothing between steps."""
    if machine.dry:
        return 0.0
    return median(machine.samples_us(batch.launch, steps))


def decode_grid(report: Report, bench: Bench) -> None:
    table = report.table(
        "Decode", "batch", "context", "sampling", "ms", "p90 ms", "tok/s", "device ms", "idle %",
        "floor ms", "% of floor", "% of floor at 4.3 TB/s",
    )  # fmt: skip
    for batch, context in bench.grid:
        for name, sampling in (("greedy", Sampling()), ("top-p", WARM)):
            if sampling is WARM and (batch, context) not in PROFILED:
                continue
            if not fits(bench, batch, context):
                report.notes.append(f"no room for {batch} x {context} tokens of KV")
                continue
            took = stepped(Batch(bench, batch, context, sampling), bench.steps, ahead=True)
            busy = busy_us(report.machine, Batch(bench, batch, context, sampling), bench.steps)
            floor_ms = bench.decode_floor_ms(batch, context, bench.read_tbs)
            usual_ms = bench.decode_floor_ms(batch, context, COPY_TBS)
            table.add(
                batch, context, name, took.p50_us / 1e3, took.p90_us / 1e3, batch / took.p50_us * 1e6,
                busy / 1e3, 100 * (1 - busy / took.p50_us), floor_ms, 100 * floor_ms * 1e3 / took.p50_us,
                100 * usual_ms * 1e3 / took.p50_us,
            )  # fmt: skip


def fits(bench: Bench, batch: int, context: int) -> bool:
    tokens = context + 3 * bench.steps + bench.engine.block_tokens
    blocks = batch * -(-tokens // bench.engine.block_tokens)
    return blocks <= bench.runner.kv.blocks and batch <= bench.engine.running_max


def step_kernels(report: Report, bench: Bench) -> None:
    """What a step consists of, as the profiler sees it on the device."""
    machine = report.machine
    table = report.table("Kernels of a decode step", "batch", "context", "kernel", "launches", "us", "% of all")  # fmt: skip
    activity = ProfilerActivity.CPU if machine.dry else ProfilerActivity.CUDA
    for batch, context in [point for point in bench.grid if point in PROFILED or machine.dry]:
        work = Batch(bench, batch, context, Sampling())
        for _ in range(3):
            work.launch().wait()
        with profile(activities=[activity]) as seen:
            for _ in range(PROFILED_STEPS):
                work.launch().wait()
        events = [
            (event.key, event.count, event.self_cpu_time_total if machine.dry else event.self_device_time_total)
            for event in seen.key_averages()
        ]  # fmt: skip
        events.sort(key=lambda event: -event[2])
        whole = sum(us for _, _, us in events)
        rest = events[PROFILED_KERNELS:]
        told = [*events[:PROFILED_KERNELS], ("all others", sum(n for _, n, _ in rest), sum(us for _, _, us in rest))]  # fmt: skip
        for name, count, us in told:
            launches, each_us = count / PROFILED_STEPS, us / PROFILED_STEPS
            table.add(batch, context, name[:60], launches, each_us, 100 * us / max(whole, 1e-9))


def prefill(report: Report, bench: Bench) -> None:
    table = report.table("Prefill, in chunks of step_tokens_max", "tokens", "ms", "spread %", "floor ms", "% of floor")  # fmt: skip
    chunk = bench.engine.step_tokens_max
    for number, tokens in enumerate(bench.prompts):
        if not fits(bench, 1, tokens):
            report.notes.append(f"no room for a prompt of {tokens} tokens")
            continue
        (blocks,) = tables([tokens], bench.runner.kv.blocks, bench.engine.block_tokens)
        samples = []
        for attempt in range(2 if report.machine.dry else 6):
            started_s = time.perf_counter()
            for start in range(0, tokens, chunk):
                part = [5] * min(chunk, tokens - start)
                last = start + len(part) == tokens
                request = -1 - 100 * number - attempt
                slices = [Slice(part, start, blocks, last, request)]
                draws = bench.runner.launch(slices, [Sampling()] if last else [])
            draws.wait()
            samples.append((time.perf_counter() - started_s) * 1e6)
        took, floor_ms = Timing.of(samples[1:]), bench.prefill_floor_ms(tokens)
        table.add(tokens, took.p50_us / 1e3, 100 * took.spread, floor_ms, 100 * floor_ms * 1e3 / took.p50_us)  # fmt: skip


def ablations(report: Report, bench: Bench) -> None:
    table = report.table("What each technique is worth", "batch", "context", "without", "ms", "times the whole")  # fmt: skip
    decoder, eager_steps = bench.runner.decoder, max(2, bench.steps // 4)
    points = bench.grid[:1] if report.machine.dry else [(1, 1024), (32, 1024), (128, 1024)]
    whole = {point: stepped(Batch(bench, *point, Sampling()), bench.steps, ahead=True) for point in points}  # fmt: skip

    def compare(without: str, *, ahead: bool, steps: int) -> None:
        for point in points:
            took = stepped(Batch(bench, *point, Sampling()), steps, ahead=ahead)
            ratio = took.p50_us / whole[point].p50_us
            table.add(*point, without, took.p50_us / 1e3, ratio)

    compare("running ahead", ahead=False, steps=bench.steps)
    with torch.inference_mode():
        decoder.make(Eager, buckets(bench.engine.running_max))
    compare("graphs", ahead=True, steps=eager_steps)
    if not report.machine.dry:
        compare("graphs and running ahead", ahead=False, steps=eager_steps)
    for product in bench.runner.model.products:
        product.few_rows = 0
    if report.machine.dry:
        compare("graphs and the kernel for few rows", ahead=True, steps=eager_steps)
        return
    graphs(bench, [batch for batch, _ in points])
    compare("the kernel for few rows", ahead=True, steps=bench.steps)


def graphs(bench: Bench, rows: list[int]) -> None:
    from tercet.workers.gpu.captured import Captured, GraphPool  # noqa: PLC0415 -- beside its use

    pool = GraphPool()
    with torch.inference_mode():
        bench.runner.decoder.make(lambda work: Captured(work, pool), rows)


def whole_engine(report: Report, bench: Bench) -> None:
    """The same through scheduler, block pool and events: what the host adds where it cannot hide."""
    table = report.table("Steps of the whole engine, from prompts of 64 tokens", "batch", "ms", "p90 ms", "tok/s")  # fmt: skip
    batches = (1,) if report.machine.dry else (1, 32, 128, 256)
    prompt_tokens = 4 if report.machine.dry else 64
    for batch in batches:
        if batch > bench.engine.running_max:
            continue
        engine = Engine(bench.runner, bench.engine, MonotonicClock())
        for i in range(batch):
            sampling = Sampling(max_tokens=bench.steps + 2, ignore_eos=True)
            prompt = [(i + j) % bench.runner.vocab_size for j in range(prompt_tokens)]
            engine.handle(Run(RequestSpec(RequestId(f"r{i}"), prompt, sampling), FIRST_EPOCH, "b"))
        while engine.load().pending_prefill_tokens:
            engine.step()
        samples_us = []
        for _ in range(bench.steps):
            started_s = time.perf_counter()
            engine.step()
            samples_us.append((time.perf_counter() - started_s) * 1e6)
        while engine.has_work:
            engine.step()
        took = Timing.of(samples_us[len(samples_us) // 10 :])
        table.add(batch, took.p50_us / 1e3, took.p90_us / 1e3, batch / took.p50_us * 1e6)


def make_bench(report: Report, model: str, read_tbs: float, product_tf: float, steps: int) -> Bench:
    machine = report.machine
    if machine.dry:
        engine = EngineConfig(block_tokens=16, kv_blocks=16, step_tokens_max=16, running_max=2)
        checkpoint = random_model("tiny", 128, machine.device, torch.float32)
        steps, grid, prompts = 2, [(1, 20)], (12,)
    else:
        engine = EngineConfig(
            block_tokens=64, kv_blocks=0, step_tokens_max=8192, running_max=256, memory_share=0.9
        )
        checkpoint = random_model(model, 40960, machine.device, torch.bfloat16)
        grid, prompts = GRID, PROMPTS
    shape = shape_of(checkpoint)
    # Random weights amplify rounding, so this finds wrong positions and masks, not wrong last bits.
    trial = Trial.of(checkpoint, msgspec.structs.replace(engine, kv_blocks=engine.kv_blocks or 1))
    runner = open_runner(checkpoint, engine)
    with report.section("comparison with transformers' logits"):
        trial.hold(runner)
    filled_at_random(runner.kv.tensor)
    return Bench(runner, engine, shape, read_tbs, product_tf, steps, grid, prompts)


def filled_at_random(tensor: torch.Tensor) -> None:
    for part in tensor.split(256):
        part.normal_()


def main() -> int:
    made = parser(__doc__, "gpu_engine", 420)
    made.add_argument("--model", default="Llama-3.1-8B")
    made.add_argument("--read-tbs", type=float, default=4.67)
    made.add_argument("--product-tf", type=float, default=790.0)
    made.add_argument("--steps", type=int, default=200, help="of each decode point")
    options = made.parse_args()
    torch.manual_seed(0)
    report = Report(Machine.here(options.dry_run), options.seconds, options.json)
    bench = make_bench(report, options.model, options.read_tbs, options.product_tf, options.steps)
    about: Table = report.table("Model", "name", "KV blocks", "weights GB", "KV B/token")
    weights = bench.shape.decode_weight_bytes / 1e9
    about.add(
        "tiny" if options.dry_run else options.model,
        bench.runner.kv.blocks,
        weights,
        bench.shape.kv_bytes,
    )
    sections = (
        ("kernels of a step", step_kernels),
        ("decode grid", decode_grid),
        ("prefill", prefill),
        ("whole engine", whole_engine),
        ("ablations", ablations),
    )
    report.run({name: lambda report, run=run: run(report, bench) for name, run in sections})
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
