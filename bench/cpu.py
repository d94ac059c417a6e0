"""Claim: on a CPU Tercet's engine decodes faster than other people's.

    python bench/cpu.py [--peers FOLDER] [--dtypes float32 bfloat16] [--batches 1 16] [--rounds 5] [--sides …]

One Llama of 48 M random parameters, 128 tokens in, 64 out, greedy, all cores. Every engine is loaded in a process of its own and
asked in turn for the same prompts, so that whatever else the machine does hits all of them; the best round of each counts, and
its ratio to the best of all. FOLDER holds peers' environments (see bench/peers/README.md); one that is missing is left out and said
so. In fp32 tokens are compared with those of transformers. Writes bench/results/cpu.json.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from checkpoint import tokenizer

HERE = Path(__file__).parent
SCRIPTS = HERE / "peers" / "engines"
RESULT = HERE / "results" / "cpu.json"
INPUT, OUTPUT, VOCABULARY = 128, 64, 16384
REFERENCE = "transformers generate"

console = Console()


@dataclass(frozen=True, slots=True)
class Side:
    """An engine: its script, and the environment it needs below the peers' folder (ours has none)."""

    script: str
    environment: str = ""
    needs: str = ""
    """A variable without which it cannot run."""

    def python(self, peers: Path | None) -> Path | None:
        """The interpreter, if it is there."""
        if not self.environment:
            return Path(sys.executable)
        found = peers / self.environment / "bin" / "python" if peers else None
        return found if found and found.exists() and (os.environ.get(self.needs, "x")) else None


SIDES = {
    "tercet": Side("ours.py"),
    REFERENCE: Side("transformers_generate.py"),
    "transformers batching": Side("transformers_batching.py"),
    "vLLM": Side("vllm_cpu.py", "vc"),
    "OpenVINO": Side("openvino_batching.py", "ov"),
    "llama.cpp": Side("llama_server.py", "lc", needs="LLAMA_SERVER"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One engine at one type and batch size."""

    side: str
    version: str
    dtype: str
    batch: int
    tokens_per_s: float
    """Of the best round."""
    median_tokens_per_s: float
    of_best: float
    """Of the fastest engine's `tokens_per_s`."""
    same_tokens: int
    """Prompts of the last round whose tokens are those of transformers; in types other than fp32 rounding decides."""


class Engine:
    """A process that answers one order after the other, and sleeps in between."""

    def __init__(self, python: Path, side: Side, folder: Path, dtype: str, threads: int) -> None:
        log = (folder / f"{side.script}.log").open("wb")
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        if not side.environment:
            environment["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
        self.log = Path(log.name)
        self.process = subprocess.Popen(
            [python, SCRIPTS / side.script, folder, dtype, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment | {"OMP_NUM_THREADS": str(threads), "KMP_BLOCKTIME": "1"},
            start_new_session=True,
            text=True,
        )
        self.version = json.loads(self._line())["version"]

    def run(self, prompts: list[list[int]]) -> tuple[float, list[list[int]]]:
        """Seconds, and every prompt's tokens."""
        assert self.process.stdin is not None
        order = json.dumps({"prompts": prompts, "output_tokens": OUTPUT})
        self.process.stdin.write(order + "\n")
        self.process.stdin.flush()
        answer = json.loads(self._line())
        assert all(len(output) == OUTPUT for output in answer["outputs"]), self.log
        return answer["seconds"], answer["outputs"]

    def end(self) -> None:
        os.killpg(self.process.pid, 9)
        self.process.wait()

    def _line(self) -> str:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return line
        tail = self.log.read_text(errors="replace")[-2000:]
        raise ChildProcessError(f"{self.log.name}: it ended\n{tail}")


@contextmanager
def engines(
    names: list[str], peers: Path | None, folder: Path, dtype: str, threads: int
) -> Iterator[dict[str, Engine]]:
    """All that can be had."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            side = SIDES[name]
            python = side.python(peers)
            if python is None:
                console.print(f"{name} is left out: no {side.environment}/bin/python, {side.needs}")
                continue
            with console.status(f"loading {name}, {dtype}"):
                found[name] = Engine(python, side, folder, dtype, threads)
            stack.callback(found[name].end)
        yield found


def save_llama(folder: Path) -> None:
    """A checkpoint of random weights."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=8,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        initializer_range=0.05,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def measure(found: dict[str, Engine], dtype: str, batch: int, rounds: int) -> list[Row]:
    """All sides in turn, with other prompts each round; the first round warms up and is not counted."""
    dice = random.Random(batch)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    outputs: dict[str, list[list[int]]] = {}
    for turn in range(rounds + 1):
        prompts = [dice.choices(range(10, VOCABULARY), k=INPUT) for _ in range(batch)]
        for name, engine in found.items():
            with console.status(f"{dtype}, {batch} at once, round {turn} of {rounds}: {name}"):
                took_s, outputs[name] = engine.run(prompts)
            if turn:
                seconds[name].append(took_s)
    tokens, fastest_s = batch * OUTPUT, min(min(each) for each in seconds.values())
    expected = outputs.get(REFERENCE, [])
    return [
        Row(
            side=name,
            version=engine.version,
            dtype=dtype,
            batch=batch,
            tokens_per_s=tokens / min(seconds[name]),
            median_tokens_per_s=tokens / statistics.median(seconds[name]),
            of_best=fastest_s / min(seconds[name]),
            same_tokens=sum(a == b for a, b in zip(outputs[name], expected, strict=False)),
        )
        for name, engine in found.items()
    ]


def show(rows: list[Row]) -> None:
    table = Table("engine", "version", "type", "at once", title="Tokens a second, best round")
    for name in ("best", "median", "of the best", "tokens as transformers"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: (row.dtype, row.batch, -row.tokens_per_s)):
        table.add_row(
            *(row.side, row.version, row.dtype, str(row.batch)),
            *(f"{row.tokens_per_s:,.0f}", f"{row.median_tokens_per_s:,.0f}", f"{row.of_best:.2f}"),
            f"{row.same_tokens} of {row.batch}",
        )
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, help="folder with peers' environments")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, default=RESULT)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        save_llama(folder)
        for dtype in options.dtypes:
            with engines(options.sides, options.peers, folder, dtype, options.threads) as found:
                for batch in options.batches:
                    rows += measure(found, dtype, batch, options.rounds)
    show(rows)
    shape = {"input": INPUT, "output": OUTPUT, "threads": options.threads, "rounds": options.rounds}
    table = {"options": shape, "rows": [asdict(row) for row in rows]}
    options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
