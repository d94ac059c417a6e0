"""KV pulled by the transfer thread against a bare NIXL loop: the same buffers and descriptors, in turn, in one run.

    python bench/transfer.py [--rounds 15] [--json bench/results/transfer.json]

Two processes, as two workers are. *Ours* is a `TransferThread` on both sides: descriptors are made of a job's blocks, the
blocks are read, then their generation words, and the two compared. *Bare* is the least that moves the bytes: descriptors
are ready made, one READ is posted and polled without a pause, and the source polls for it every 20 µs. Both go first in
every other round. Times are the best of all rounds, because the machine may have other things to do.
"""

import argparse
import importlib
import json
import os
import queue
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import KvRegion
from tercet.workers.kv_pool import zeroed_pages
from tercet.workers.transfer.base import JobId, Memory, Pulled, PullJob, TransferEvent
from tercet.workers.transfer.nixl import nixl_backend
from tercet.workers.transfer.thread import TransferThread

BLOCK_BYTES = 64 * 2**10
POOL_BYTES = 512 * 2**20
BLOCKS = POOL_BYTES // BLOCK_BYTES
CONFIG = TransferConfig(wait_s=30.0, net_devices="lo")
LINKS = {"shared memory": {}, "tcp": {"UCX_TLS": "tcp"}}
"""What UCX is allowed, besides the loopback device."""
SIZES = {"64 KiB": 1, "1 MiB": 16, "16 MiB": 256, "256 MiB": 4096}
"""In blocks."""
RUNS = (1, 16, 256, 4096)
BARE_SOURCE_PAUSE_S = 20e-6
Row = dict[str, str | float]


class Side:
    """One process's pool, read through a transfer thread and through a bare agent, both over the same memory."""

    def __init__(self, name: str) -> None:
        self.pool = np.frombuffer(zeroed_pages(POOL_BYTES), dtype=np.uint8)
        self.generations = np.ones(BLOCKS, dtype=np.uint64)
        self.events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        self.transfer = TransferThread(
            name,
            Memory(self.pool.ctypes.data, BLOCK_BYTES, BLOCKS, self.generations.ctypes.data),
            CONFIG,
            nixl_backend(CONFIG),
            self.events.put,
            lambda exc: os._exit(1),
        )
        self.transfer.start()
        api = importlib.import_module("nixl_cu12._api")
        settings = api.nixl_agent_config(enable_prog_thread=False, backends=["UCX"])
        self.bare = api.nixl_agent(f"bare {name}", settings)
        self.bare.register_memory([(self.pool.ctypes.data, POOL_BYTES, 0, "")], "DRAM")


# ---- the source's process --------------------------------------------------------------------------------------------


def source() -> None:
    """Says where its memory is, then lets whichever of its two agents is named be read from, until told otherwise."""
    side = Side("source:1")
    side.pool[:] = np.random.default_rng(1).integers(0, 255, POOL_BYTES, dtype=np.uint8)
    region = side.transfer.region
    about = {
        "region": [region.agent.hex(), region.base, region.generation_base],
        "bare": side.bare.get_agent_metadata().hex(),
    }
    print(json.dumps(about), flush=True)
    polling, over = threading.Event(), threading.Event()
    poller = threading.Thread(target=poll, args=(side, polling, over))
    poller.start()
    for line in sys.stdin:
        bare = line.strip() == "bare"
        side.transfer.expect_readers(0 if bare else 1)
        if bare:
            polling.set()
        else:
            polling.clear()
        print("ready", flush=True)
    over.set()
    poller.join()
    side.transfer.stop()


def poll(side: Side, polling: threading.Event, over: threading.Event) -> None:
    """Over TCP nobody can read from an agent that is not polled."""
    while not over.is_set():
        side.bare.get_new_notifs()
        if polling.is_set():
            time.sleep(BARE_SOURCE_PAUSE_S)
        else:
            polling.wait(0.02)


# ---- the destination's process ---------------------------------------------------------------------------------------


class Pair:
    """This process as destination and a child as source."""

    def __init__(self) -> None:
        self.side = Side("destination:1")
        self._child = subprocess.Popen(
            [sys.executable, __file__, "--source"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        about = json.loads(self._line())
        agent, self.base, words = about["region"]
        region = KvRegion(bytes.fromhex(agent), self.base, BLOCK_BYTES, BLOCKS, words)
        self.side.transfer.add_peer("source:1", region)
        self.peer = self.side.bare.add_remote_agent(bytes.fromhex(about["bare"])).decode()
        self.serve("bare")
        self.side.bare.make_connection(self.peer)
        self._numbers = iter(range(10**9))

    def _line(self) -> str:
        assert self._child.stdout
        for line in self._child.stdout:
            if line.startswith(("{", "ready")):
                return line
        raise RuntimeError("the source has ended")

    def serve(self, side: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(f"{side}\n")
        self._child.stdin.flush()
        assert self._line() == "ready\n"

    def close(self) -> None:
        assert self._child.stdin
        self._child.stdin.close()
        self._child.wait()
        self.side.transfer.stop()

    def ours(self, local: np.ndarray, remote: np.ndarray) -> float:
        """Seconds from the order until the event that all is here."""
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), next(self._numbers)),
            "source:1",
            tuple(map(BlockId, remote.tolist())),
            tuple(map(BlockId, local.tolist())),
            (1,) * len(local),
        )
        began_s = time.perf_counter()
        self.side.transfer.pull(job)
        event = self.side.events.get(timeout=60)
        taken_s = time.perf_counter() - began_s
        assert isinstance(event, Pulled), event
        return taken_s

    def bare(self, local: np.ndarray, remote: np.ndarray) -> float:
        """Both are rows of `[address, length, device]`."""
        agent = self.side.bare
        here = agent.get_xfer_descs(local, "DRAM")
        there = agent.get_xfer_descs(remote, "DRAM")
        began_s = time.perf_counter()
        handle = agent.initialize_xfer("READ", here, there, self.peer)
        state = agent.transfer(handle)
        while state == "PROC":
            state = agent.check_xfer_state(handle)
        agent.release_xfer_handle(handle)
        taken_s = time.perf_counter() - began_s
        assert state == "DONE", state
        return taken_s


def scattered(blocks: int, runs: int, seed: int) -> np.ndarray:
    """`blocks` block numbers in `runs` ascending runs that do not touch, in an order of their own."""
    length = blocks // runs
    places = np.random.default_rng(seed).permutation(BLOCKS // (length + 1))[:runs]
    return (places[:, None] * (length + 1) + np.arange(length)).reshape(-1)


def rows(base: int, numbers: np.ndarray, length: int) -> np.ndarray:
    found = np.zeros((len(numbers) // length, 3), dtype=np.uint64)
    found[:, 0] = base + numbers[::length].astype(np.uint64) * BLOCK_BYTES
    found[:, 1] = length * BLOCK_BYTES
    return found


def cell(pair: Pair, size: str, runs: int, rounds: int) -> Row:
    """One size in so many runs: the same blocks for both sides, other ones each round."""
    blocks = SIZES[size]
    length = blocks // runs
    ours, bare, ratios = [], [], []
    for number in range(rounds + 1):
        local, remote = scattered(blocks, runs, 2 * number), scattered(blocks, runs, 2 * number + 1)
        here = rows(pair.side.pool.ctypes.data, local, length)
        there = rows(pair.base, remote, length)
        for side in ("bare", "ours") if number % 2 else ("ours", "bare"):
            pair.serve(side)
            if side == "bare":
                bare.append(pair.bare(here, there))
            else:
                ours.append(pair.ours(local, remote))
        ratios.append(bare[-1] / ours[-1])
    best_bare, best_ours = min(bare[1:]), min(ours[1:])  # the first round makes connections
    total = blocks * BLOCK_BYTES
    return {
        "size": size,
        "descriptors": runs,
        "bare_ms": 1e3 * best_bare,
        "ours_ms": 1e3 * best_ours,
        "bare_gb_per_s": total / best_bare / 1e9,
        "ours_gb_per_s": total / best_ours / 1e9,
        "ratio": best_bare / best_ours,
        "ratio_median": statistics.median(ratios[1:]),
    }


def measure(rounds: int) -> list[Row]:
    pair = Pair()
    try:
        return [
            cell(pair, size, runs, rounds)
            for size, blocks in SIZES.items()
            for runs in RUNS
            if runs <= blocks
        ]
    finally:
        pair.close()


def over(link: str, rounds: int) -> list[Row]:
    """In processes of their own, because UCX reads its environment once."""
    done = subprocess.run(
        [sys.executable, __file__, "--destination", "--rounds", str(rounds)],
        env={**os.environ, **LINKS[link]}, check=True, stdout=subprocess.PIPE, timeout=900,
    )  # fmt: skip
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return [{"link": link, **row} for row in found]


def show(found: list[Row]) -> None:
    table = Table(title="pulls against a bare NIXL loop", title_justify="left")
    for name in found[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in found:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--destination", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.source:
        source()
    elif arguments.destination:
        print(json.dumps(measure(arguments.rounds)))
    else:
        found = [row for link in LINKS for row in over(link, arguments.rounds)]
        show(found)
        if arguments.json:
            arguments.json.write_text(json.dumps({"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
