"""KV in host memory for a device that is too small: the same requests, on engines with `engine.host_kv_blocks` and without.

Three loads. *returning*: conversations come again one at a time, each after more of others than the device holds; what counts is
the time to the first token. *crowded*: more outputs at once than the device has room for, admitted aggressively, so that
requests give way; what counts is the throughput. *fresh*: prompts that nobody has sent before, so that everything that is saved
is saved in vain.

Both engines run in turn, one thread, on the CPU, where the "device" is memory as well. Times are of the processor, which other
processes disturb less than the clock on the wall; medians of the rounds are compared. The tokens of both must be the same.

    python bench/host_tier.py --json bench/results/host_tier.json
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from msgspec import structs
from rich.console import Console
from rich.table import Table

from checkpoint import llama
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import BetweenLayers, Slice, go_on

BLOCK_TOKENS = 16
VOCABULARY = 8192
ENGINE = EngineConfig(
    block_tokens=BLOCK_TOKENS,
    kv_blocks=96,
    step_tokens_max=256,
    running_max=16,
    admission="aggressive",
    start_within_s=1e9,
)
HOST_BLOCKS = 384


class ProcessorClock:
    """The processor time of this process."""

    def now_s(self) -> float:
        return time.process_time()


class CountingRunner:
    """Counts the tokens that go through the model. See `Runner`."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.kv = runner.kv
        self.vocab_size = runner.vocab_size
        self.context_tokens_max = runner.context_tokens_max
        self.eos_token_ids = runner.eos_token_ids
        self.compat = runner.compat
        self.tokens = 0

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        self.tokens += sum(len(part.tokens) for part in slices)
        return self._runner.forward(slices, between_layers)


@dataclass
class Service:
    """An engine, and when it said what."""

    engine: Engine
    runner: CountingRunner
    clock: ProcessorClock = field(default_factory=ProcessorClock)
    output: dict[str, list[int]] = field(default_factory=dict)
    first_s: dict[str, float] = field(default_factory=dict)
    preemptions: int = 0
    fed: int = 0
    """Tokens that have to be computed if nothing is found and nothing lost: prompts, and outputs but for their last."""

    def serve(self, prompts: dict[str, list[int]], max_tokens: int) -> None:
        """All at once, until the last one ends."""
        began_s = self.clock.now_s()
        for name, prompt in prompts.items():
            sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)
            spec = RequestSpec(RequestId(name), list(prompt), sampling)
            self.output[name] = []
            self.fed += len(prompt) + max_tokens - 1
            self.engine.handle(Run(spec, FIRST_EPOCH, "bench"))
        running = set(prompts)
        while running:
            for event in self.engine.step():
                if isinstance(event, Said) and isinstance(message := event.message, Tokens):
                    self.first_s.setdefault(message.request, self.clock.now_s() - began_s)
                    self.output[message.request] += message.tokens
                    if message.usage is not None:
                        self.preemptions += message.usage.preemptions
                        running.remove(message.request)


Load = Callable[[Service, random.Random], dict[str, float]]


def returning(service: Service, dice: random.Random) -> dict[str, float]:
    """Eight conversations of about 500 tokens, of which the device holds three; three turns each."""
    said = {str(i): words(dice, dice.randrange(400, 600)) for i in range(8)}
    waits_s: list[float] = []
    for turn in range(3):
        for name, log in said.items():
            call = f"{name}.{turn}"
            service.serve({call: log}, 16)
            log += service.output[call] + words(dice, 32)
            if turn:
                waits_s.append(service.first_s[call])
    return {"ttft_s_p50": statistics.median(waits_s)}


def crowded(service: Service, dice: random.Random) -> dict[str, float]:
    """Sixteen requests of 4 blocks that become 16: all fit as they come, six in the end."""
    began_s = service.clock.now_s()
    service.serve({str(i): words(dice, 64) for i in range(16)}, 192)
    return {"output_tokens_per_s": 16 * 192 / (service.clock.now_s() - began_s)}


def fresh(service: Service, dice: random.Random) -> dict[str, float]:
    """Twenty-four prompts of 400 tokens, six at a time."""
    began_s = service.clock.now_s()
    for start in range(0, 24, 6):
        service.serve({str(i): words(dice, 400) for i in range(start, start + 6)}, 8)
    return {"prompt_tokens_per_s": 24 * 400 / (service.clock.now_s() - began_s)}


def words(dice: random.Random, count: int) -> list[int]:
    return [dice.randrange(1, VOCABULARY) for _ in range(count)]


LOADS: dict[str, Load] = {"returning": returning, "crowded": crowded, "fresh": fresh}


@dataclass(frozen=True, slots=True)
class Side:
    """One load on one of the engines: figures of one round, or the medians of several."""

    computed_tokens: float
    needless_share: float
    """By how much more was computed than if every request ran alone, uncached and undisturbed; below 0 where caches helped."""
    preemptions: float
    saved_blocks: float
    fetched_blocks: float
    host_hit_tokens: float
    figure: float
    """What counts for this load."""


def measure(runner: ModelRunner, host_blocks: int, load: Load, seed: int) -> tuple[Side, str]:
    config = structs.replace(ENGINE, host_kv_blocks=host_blocks)
    counting = CountingRunner(runner)
    service = Service(Engine(counting, config, ProcessorClock()), counting)
    (figure,) = load(service, random.Random(seed)).values()
    host = service.engine.load().host
    side = Side(
        counting.tokens,
        counting.tokens / service.fed - 1,
        service.preemptions,
        host.saved_blocks,
        host.fetched_blocks,
        host.host_hit_tokens,
        figure,
    )
    return side, json.dumps(service.output)


def compare(runner: ModelRunner, load: Load, rounds: int) -> dict[str, Side]:
    """Medians, the engines in turn, each first in every other round."""
    sides: dict[str, list[Side]] = {"without": [], "with": []}
    for seed in range(rounds):
        outputs = set()
        for name in sorted(sides, reverse=seed % 2 == 0):
            side, output = measure(runner, HOST_BLOCKS * (name == "with"), load, seed)
            sides[name].append(side)
            outputs.add(output)
        assert len(outputs) == 1, "the tier has changed the tokens"
    return {
        name: Side(*(statistics.median(column) for column in zip(*map(values, many), strict=True)))
        for name, many in sides.items()
    }


def values(side: Side) -> list[float]:
    return list(asdict(side).values())


def show(results: dict[str, dict[str, Side]]) -> None:
    table = Table(
        title="What counts: s to the first token of a turn, output tokens/s, prompt tokens/s"
    )
    for head in ("load", "tier", "computed", "needless", "gave way", "saved", "fetched", "counts"):
        table.add_column(head, justify="left" if head in ("load", "tier") else "right")
    for load, sides in results.items():
        for name, side in sides.items():
            table.add_row(
                load,
                name,
                f"{side.computed_tokens:,.0f}",
                f"{side.needless_share:+.1%}",
                f"{side.preemptions:.0f}",
                f"{side.saved_blocks:.0f}",
                f"{side.fetched_blocks:.0f}",
                f"{side.figure:,.4g}",
            )
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="about the machine, kept with the figures")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = llama(Path(folder), hidden=arguments.hidden, layers=arguments.layers)
        runner = ModelRunner.load(ModelConfig(path=str(path), dtype="float32"), ENGINE)
        results = {name: compare(runner, load, arguments.rounds) for name, load in LOADS.items()}
        block_bytes = runner.kv.block_bytes
    show(results)
    if arguments.json:
        record = {
            "note": arguments.note,
            "hidden": arguments.hidden,
            "layers": arguments.layers,
            "rounds": arguments.rounds,
            "block_bytes": block_bytes,
            "kv_blocks": ENGINE.kv_blocks,
            "host_kv_blocks": HOST_BLOCKS,
            "loads": {
                load: {name: asdict(side) for name, side in sides.items()}
                for load, sides in results.items()
            },
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
