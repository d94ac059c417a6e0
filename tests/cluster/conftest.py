"""A real cluster on this machine: Ray, one prefill and two decode workers, and a tiny random model made on the spot.

Every cluster is a process of its own with its own Ray, ports and directories, so that two test runs do not disturb each
other; and whatever it started must have ended with it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tercet.cluster.process_tree import descendants, survivors
from tercet.cluster.run_record import RunBook, RunRecord
from tercet.cluster.status import ClusterStatus

START_S_MAX = 120.0
END_S_MAX = 60.0
POLL_S = 0.1
BIN = Path(sys.executable).parent

CLUSTER_FILE = """\
name: {name}
model: {{path: {checkpoint}, name: tiny}}
engine: {{kv_blocks: 256}}
pools:
  prefill: {{replicas: 1, resources: {{cpus: 0.1}}}}
  decode: {{replicas: 2, resources: {{cpus: 0.1}}}}
router: {{local_prefill_tokens_max: 16}}
transfer: {{net_devices: lo}}
front_door: {{http_port: {http_port}, grpc_port: 0, cpus: 0.1}}
"""
PLACES = """\
import sys
from pathlib import Path
from tercet.cluster.ray_places import reserved
from tercet.cluster.ray_runtime import RayRuntime

runtime = RayRuntime.attach(sys.argv[1], Path(sys.argv[2]))
print(*reserved("tercet-worker:"))
runtime.stop()
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.2 million random weights over bytes."""
    path = tmp_path_factory.mktemp("checkpoint")
    bytes_bpe = Tokenizer(models.BPE())
    bytes_bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bytes_bpe.train_from_iterator(
        [],
        trainers.BpeTrainer(
            vocab_size=257,
            special_tokens=["<|end|>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_bpe, eos_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=257,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def write_cluster_file(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, int], Path]:
    """Makes a cluster file with this name and HTTP port; 0 is any free one."""

    def write(name: str, http_port: int = 0) -> Path:
        path = tmp_path_factory.mktemp("files") / f"{name}.yaml"
        path.write_text(CLUSTER_FILE.format(name=name, checkpoint=checkpoint, http_port=http_port))
        return path

    return write


@dataclass(frozen=True)
class Served:
    """A cluster that `tercet serve` runs, and the means to look at it and to hurt it."""

    file: Path
    environment: dict[str, str]
    server: "subprocess.Popen[bytes]"
    record: RunRecord
    log: Path
    """What it prints."""

    @property
    def url(self) -> str:
        return f"http://{self.record.http}"

    def tercet(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command line to its end."""
        return subprocess.run(
            ["tercet", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=START_S_MAX,
        )

    def status(self) -> ClusterStatus:
        done = self.tercet("status", "--json")
        assert done.returncode in (0, 1), done.stderr
        return msgspec.json.decode(done.stdout, type=ClusterStatus)

    def until(self, holds: Callable[[ClusterStatus], bool], wait_s: float = 60.0) -> ClusterStatus:
        """The first status of which this holds."""
        deadline_s = time.monotonic() + wait_s
        while not holds(now := self.status()):
            assert time.monotonic() < deadline_s, msgspec.json.encode(now).decode()
            time.sleep(POLL_S)
        return now

    def places(self) -> set[str]:
        """The placement groups Ray keeps for workers, by name."""
        record = self.record
        command = [sys.executable, "-c", PLACES, record.address, record.ray_token]
        return set(subprocess.check_output(command, env=self.environment, text=True).split())

    def complete(self, prompt: str, max_tokens: int = 8) -> str:
        """The greedy completion, over HTTP."""
        body = {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        reply = httpx.post(f"{self.url}/v1/completions", json=body, timeout=60)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["choices"][0]["text"])

    def last_record(self) -> dict[str, object]:
        """What the front door remembers of the last request."""
        records = httpx.get(f"{self.url}/tercet/requests", params={"limit": 1}, timeout=10).json()
        return dict(records[0])


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Ours, with the virtual environment's commands, but for what is left of another Ray in this process."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"PATH": f"{BIN}:{kept['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="session")
def end() -> Callable[["subprocess.Popen[bytes]"], None]:
    """Ends a process by SIGTERM and sees that everything below it ends with it."""

    def end_family(head: "subprocess.Popen[bytes]") -> None:
        family = {each: each.command for each in descendants(head.pid)}
        head.terminate()
        try:
            head.wait(END_S_MAX)
        finally:
            left = survivors(set(family), 15.0)
            for each in left:
                os.kill(each.pid, signal.SIGKILL)
        assert not left, f"these outlived it: {[family[each] for each in left]}"

    return end_family


@pytest.fixture(scope="module")
def served(
    write_cluster_file: Callable[[str, int], Path],
    tmp_path_factory: pytest.TempPathFactory,
    environment: dict[str, str],
    end: Callable[["subprocess.Popen[bytes]"], None],
) -> Iterator[Served]:
    """A cluster that `tercet serve` runs in the foreground of a process of its own."""
    run_dir, file = tmp_path_factory.mktemp("run"), write_cluster_file("test", 0)
    environment = environment | {"TERCET_RUN_DIR": str(run_dir)}
    log = run_dir / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            ["tercet", "serve", "-f", file],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        record = _ready(server, RunBook(run_dir), log)
        yield Served(file, environment, server, record, log)
    finally:
        if server.poll() is None:
            end(server)
    assert server.returncode == 0, log.read_text()


def _ready(server: "subprocess.Popen[bytes]", book: RunBook, log: Path) -> RunRecord:
    deadline_s = time.monotonic() + START_S_MAX
    while (record := book.read("test")) is None or not record.ready:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(POLL_S)
    return record
