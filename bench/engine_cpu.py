"""The engine against transformers' `generate`: the same random weights, prompts, type and threads, greedy.

Both sides run in turn in one process, so that whatever else the machine does hits both; medians are compared. Wall time is
what a user sees; on a shared machine the ratio of processor time (one thread) is the steadier figure. In fp32 the tokens
of both sides must be the very same.

    python bench/engine_cpu.py --layers 8 --hidden 512 --batches 1,8,16 --json bench/results/engine_cpu.json
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from tercet.clock import MonotonicClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.model_runner import ModelRunner

Outputs = list[list[int]]


@dataclass(frozen=True, slots=True)
class Side:
    """Medians of one side at one batch size."""

    tokens_per_s: float
    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One batch size."""

    batch: int
    ours: Side
    transformers: Side
    ratio_wall: float
    ratio_cpu: float
    same_tokens: bool


def save_llama(folder: Path, options: argparse.Namespace) -> None:
    """A checkpoint of random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        intermediate_size=options.intermediate,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
        num_key_value_heads=options.kv_heads,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters")
    model.save_pretrained(folder)


def run_engine(engine: Engine, prompts: Outputs, output_tokens: int, turn: int) -> Outputs:
    """All prompts at once, to the end. `turn` makes the request ids fresh."""
    outputs: dict[RequestId, list[int]] = {}
    for index, prompt in enumerate(prompts):
        request = RequestId(f"{turn}-{index}")
        outputs[request] = []
        sampling = Sampling(max_tokens=output_tokens, ignore_eos=True)
        engine.handle(Run(RequestSpec(request, prompt, sampling), FIRST_EPOCH, owner="bench"))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Said) and isinstance(event.message, Tokens):
                outputs[event.message.request].extend(event.message.tokens)
    return list(outputs.values())


def run_transformers(model: PreTrainedModel, prompts: Outputs, output_tokens: int) -> Outputs:
    settings = GenerationConfig(
        max_new_tokens=output_tokens, do_sample=False, pad_token_id=0, eos_token_id=None
    )
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    outputs: Outputs = out[:, ids.shape[1] :].tolist()
    return outputs


def timed(run: Callable[[], Outputs]) -> tuple[Outputs, float, float]:
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    outputs = run()
    return outputs, time.perf_counter() - wall_s, time.thread_time() - cpu_s


def compare(engine: Engine, model: PreTrainedModel, batch: int, options: argparse.Namespace) -> Row:
    """Both sides in turn, each time with other prompts; the first turn warms up and is not counted."""
    dice = random.Random(batch)
    samples: dict[str, list[tuple[float, float]]] = {"ours": [], "transformers": []}
    same = True
    for turn in range(options.rounds + 1):
        prompts = [dice.choices(range(options.vocabulary), k=options.input) for _ in range(batch)]
        name = batch * 1000 + turn
        ours = timed(lambda p=prompts, n=name: run_engine(engine, p, options.output, n))
        theirs = timed(lambda p=prompts: run_transformers(model, p, options.output))
        same = same and ours[0] == theirs[0]
        if turn:
            samples["ours"].append(ours[1:])
            samples["transformers"].append(theirs[1:])
    sides = {}
    for side, measured in samples.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*measured, strict=True))
        sides[side] = Side(batch * options.output / wall_s, wall_s, cpu_s)
    ours, theirs = sides["ours"], sides["transformers"]
    return Row(batch, ours, theirs, theirs.wall_s / ours.wall_s, theirs.cpu_s / ours.cpu_s, same)


def measure(options: argparse.Namespace) -> list[Row]:
    torch.set_num_threads(options.threads)
    batches = [int(batch) for batch in options.batches.split(",")]
    blocks = -(-(options.input + options.output) // 16) * max(batches) + 1
    config = EngineConfig(
        block_tokens=16, kv_blocks=blocks, running_max=max(batches), threads=options.threads
    )
    with tempfile.TemporaryDirectory() as folder:
        save_llama(Path(folder), options)
        runner = ModelRunner.load(ModelConfig(path=folder, dtype=options.dtype), config)
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, options.dtype), local_files_only=True
        ).eval()
        engine = Engine(runner, config, MonotonicClock())
        rows = []
        for batch in batches:
            rows.append(row := compare(engine, model, batch, options))
            print(
                f"batch {row.batch:3d}   ours {row.ours.tokens_per_s:7.1f} tok/s   "
                f"transformers {row.transformers.tokens_per_s:7.1f} tok/s   "
                f"ratio {row.ratio_wall:.2f} (processor time {row.ratio_cpu:.2f})   "
                f"same tokens: {row.same_tokens}",
                flush=True,
            )
    if options.dtype == "float32":
        assert all(row.same_tokens for row in rows), "fp32 outputs differ"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (
        *(("layers", 8), ("hidden", 512), ("intermediate", 2048), ("heads", 8), ("kv-heads", 4)),
        *(("vocabulary", 16384), ("input", 128), ("output", 64), ("rounds", 5), ("threads", 1)),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--batches", default="1,8,16", help="batch sizes, by commas")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--json", type=Path, help="also write the table there")
    options = parser.parse_args()
    rows = measure(options)
    if options.json:
        shape = {key: value for key, value in vars(options).items() if key != "json"}
        table = {"options": shape, "rows": [asdict(row) for row in rows]}
        options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
