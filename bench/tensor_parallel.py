"""What a worker of two processes costs and brings on a CPU: sums over ranks, decode steps, and pulls between unlike workers.

    python bench/tensor_parallel.py [--rounds 100] [--json bench/results/tensor_parallel.json]

Sums are what one layer adds up: gloo over loopback against ours, two processes, in turn, median of all rounds. Steps decode
eight requests of a Llama with random weights (`--hidden`, `--layers`), one process against two, in turn. Pulls bring 32 MiB
of KV over NIXL, best of 15, to one rank of the destination. Two processes need two idle cores.
"""

import argparse
import json
import os
import queue
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import distributed
from transformers import LlamaConfig, LlamaForCausalLM

from tercet.config import EngineConfig, ModelConfig, TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.crew import Crew
from tercet.workers.parallel.group import HOST, Add
from tercet.workers.parallel.shared_sum import Mesh
from tercet.workers.runner import Runner, Slice
from tercet.workers.transfer.base import JobId, Pulled, PullJob, TransferEvent
from tercet.workers.transfer.heads import rank_agent
from tercet.workers.transfer.nixl import nixl_backend
from tercet.workers.transfer.pool_memory import pool_memory
from tercet.workers.transfer.thread import TransferThread

SHAPES = ((1, 192), (16, 192), (16, 2048), (256, 2048))
BATCH, CONTEXT_TOKENS = 8, 64
CONFIG = TransferConfig(wait_s=30.0, net_devices="lo")
PULL_BLOCKS, PULL_ROUNDS = 256, 15
Row = dict[str, str | float]


def gloo(rank: int, store: distributed.Store) -> Add:
    options = distributed.ProcessGroupGloo._Options()
    options._devices = [distributed.ProcessGroupGloo.create_device(hostname=HOST)]
    options._timeout = timedelta(seconds=60)
    group = distributed.ProcessGroupGloo(store, rank, 2, options)

    def add(x: torch.Tensor) -> torch.Tensor:
        group.allreduce([x]).wait()
        return x

    return add


def sums(rounds: int) -> list[Row]:
    mesh = Mesh(2)
    store = distributed.TCPStore(HOST, 0, 2, is_master=True, wait_for_workers=False)
    child = os.fork()
    rank = 0 if child else 1
    if rank:
        store = distributed.TCPStore(HOST, store.port, 2, is_master=False)
    ways = {"gloo": gloo(rank, store), "shared memory": mesh.side(rank)}
    found: list[Row] = []
    for shape in SHAPES:
        wall_s, cpu_s = {}, {}
        x = torch.ones(shape)
        for name, add in ways.items():
            wall_s[name], cpu_s[name] = timed(rounds, lambda add=add, x=x: add(x))
        found += [
            {
                "rows x width": f"{shape[0]} x {shape[1]}",
                "by": name,
                "wall_us": 1e6 * wall_s[name],
                "cpu_us": 1e6 * cpu_s[name],
            }
            for name in ways
        ]
    if rank:
        os._exit(0)
    os.waitpid(child, 0)
    return found


def timed(rounds: int, work: Callable[[], object]) -> tuple[float, float]:
    """Median wall time, and mean processor time of this process."""
    walls, began_cpu_s = [], time.process_time()
    for _ in range(rounds):
        began_s = time.perf_counter()
        work()
        walls.append(time.perf_counter() - began_s)
    return statistics.median(walls), (time.process_time() - began_cpu_s) / rounds


@contextmanager
def crew_of_two(model: ModelConfig, engine: EngineConfig) -> Iterator[Runner]:
    crew = Crew(2, "bench", lambda exc: sys.exit(str(exc)))
    try:
        yield crew.load(model, engine)
    finally:
        crew.stop()


def steps(rounds: int, hidden: int, layers: int) -> list[Row]:
    config = LlamaConfig(
        vocab_size=4096, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 128,
        max_position_embeddings=1024,
    )  # fmt: skip
    engine = EngineConfig(kv_blocks=BATCH * 8)
    with tempfile.TemporaryDirectory() as path:
        LlamaForCausalLM(config).save_pretrained(path)
        model = ModelConfig(path=path)
        one = ModelRunner.load(model, engine)
        with crew_of_two(model, engine) as two:
            tables = [list(range(8 * i, 8 * i + 8)) for i in range(BATCH)]
            step = [Slice([7], CONTEXT_TOKENS, table, True) for table in tables]
            chunk = [Slice(list(range(CONTEXT_TOKENS)), 0, tables[0], True)]
            return [
                {"step": what, "processes": n, "wall_ms": 1e3 * wall_s, "cpu_ms_of_rank_0": 1e3 * cpu_s}
                for what, slices in (("8 decodes", step), ("64-token chunk", chunk))
                for n, runner in ((1, one), (2, two))
                for wall_s, cpu_s in [timed(rounds, lambda r=runner, s=slices: r.forward(s))]
            ]  # fmt: skip


class Side:
    """A worker's pools and transfers, one a rank, in this process."""

    def __init__(self, name: str, ranks: int, events: "queue.SimpleQueue[TransferEvent]") -> None:
        geometry = KvGeometry(8, 4 // ranks, 32, 16, torch.float32)
        self.pools = [KvPool(geometry, PULL_BLOCKS) for _ in range(ranks)]
        self.transfers = []
        for rank, kv in enumerate(self.pools):
            kv.generations[:] = 1
            agent, memory = rank_agent(name, rank), pool_memory(kv, rank, ranks)
            self.transfers.append(
                TransferThread(
                    agent, memory, CONFIG, nixl_backend(CONFIG), events.put, lambda exc: os._exit(1)
                )
            )
            self.transfers[-1].start()


def pulls() -> list[Row]:
    found: list[Row] = []
    for there, here in ((1, 1), (2, 2), (1, 2), (2, 1)):
        events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        source = Side(f"source-{there}-{here}", there, events)
        target = Side(f"target-{there}-{here}", here, events)
        first, *others = (transfer.region for transfer in source.transfers)
        peer, own = f"source-{there}-{here}", target.transfers[0]
        for transfer in source.transfers:
            transfer.expect_readers(1)
        own.add_peer(peer, first, others=others)
        blocks, best_s = tuple(map(BlockId, range(PULL_BLOCKS))), float("inf")
        for number in range(PULL_ROUNDS):
            job = JobId(RequestId("r"), Epoch(1), number)
            own.pull(PullJob(job, peer, blocks, blocks, (1,) * PULL_BLOCKS))
            event = events.get(timeout=60)
            assert isinstance(event, Pulled), event
            best_s = min(best_s, event.seconds)
        for transfer in (*source.transfers, *target.transfers):
            transfer.stop()
        row = {"from_ranks": there, "to_ranks": here, "mib": event.bytes / 2**20}
        found.append({**row, "best_ms": 1e3 * best_s, "gb_per_s": event.bytes / best_s / 1e9})
    return found


def show(title: str, found: list[Row]) -> None:
    table = Table(title=title, title_justify="left")
    for name in found[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in found:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=100).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = {
        "sums": sums(arguments.rounds),  # forks, so it comes first
        "steps": steps(arguments.rounds, arguments.hidden, arguments.layers),
        "pulls": pulls(),
    }
    for title, found in results.items():
        show(title, found)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
