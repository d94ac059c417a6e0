"""What packing KV before it travels costs and brings: the kernels' speed, and whole pulls over this machine's links.

    python bench/packed_kv.py [--rounds 15] [--json bench/results/packed_kv.json]

*Critical* is the bandwidth below which a link carries more KV packed than plain. Pulls are of 32 MiB of fp32 KV between two
transfers of one process; a packed one counts packing, reading, checking and unpacking. Times are the best of all rounds.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.transfer.base import JobId, Memory, Pulled, PullJob, TransferEvent
from tercet.workers.transfer.codec_choice import Codec, CodecChoice, Observation
from tercet.workers.transfer.nixl import nixl_backend
from tercet.workers.transfer.packing import Packer, Unpacker, measured_profile
from tercet.workers.transfer.thread import TransferThread

CONFIG = TransferConfig(wait_s=30.0, net_devices="lo")
LINKS = {"shared memory": {}, "tcp": {"UCX_TLS": "tcp"}}
PULL_BLOCKS, POOL_BLOCKS = 256, 512
PEER = "source:1"
Row = dict[str, str | float]


def geometry(dtype: torch.dtype) -> KvGeometry:
    """Blocks of 128 KiB in fp32."""
    return KvGeometry(layers=8, kv_heads=2, head_dim=64, block_tokens=16, dtype=dtype)


def kernels() -> list[Row]:
    found: list[Row] = []
    for dtype in (torch.float32, torch.bfloat16):
        for codec in (Codec.FP8, Codec.INT8):
            profile = measured_profile(KvPool(geometry(dtype), 1), codec)
            found.append(
                {
                    "kv": str(dtype).removeprefix("torch."),
                    "codec": codec,
                    "ratio": profile.ratio,
                    "pack_and_unpack_gb_per_s": profile.bytes_per_s / 1e9,
                    "critical_gbit_per_s": 8e-9 * profile.critical_bytes_per_s,
                }
            )
    return found


class Pair:
    """A source that packs and a destination that unpacks, both with threads of their own."""

    def __init__(self) -> None:
        self.source, self.target = (KvPool(geometry(torch.float32), POOL_BLOCKS) for _ in range(2))
        self.source.tensor.normal_()
        self.source.generations[:] = 1
        self.packer = Packer(self.source, PULL_BLOCKS)
        self.events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        self.giver = self._transfer(PEER, self.source, packer=self.packer)
        self.taker = self._transfer("target:1", self.target, Unpacker(self.target, PULL_BLOCKS))
        self.giver.expect_readers(1)
        self.taker.add_peer(PEER, self.giver.region, self.giver.staged)
        self._number = 0

    def _transfer(
        self, name: str, kv: KvPool, decoder: Unpacker | None = None, packer: Packer | None = None
    ) -> TransferThread:
        transfer = TransferThread(
            name,
            Memory(kv.address, kv.block_bytes, kv.blocks, kv.generation_address),
            CONFIG,
            nixl_backend(CONFIG),
            self.events.put,
            lambda exc: os._exit(1),
            decoder=decoder,
            staging=packer.staging.memory if packer else None,
        )
        transfer.start()
        return transfer

    def pull(self, codec: Codec) -> Observation:
        """Half of the source's pool, in one run."""
        self._number += 1
        blocks = tuple(BlockId(block) for block in range(PULL_BLOCKS))
        words = (1,) * PULL_BLOCKS
        began_s = time.perf_counter()
        remote = blocks
        if codec is not Codec.NONE:
            packed = self.packer.pack(blocks, blocks, words, codec)  # as many slots as blocks
            assert packed is not None
            words = packed
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), self._number), PEER, remote, blocks, words, codec
        )
        self.taker.pull(job)
        event = self.events.get(timeout=60)
        total_s = time.perf_counter() - began_s
        assert isinstance(event, Pulled), event
        kv_bytes = PULL_BLOCKS * self.source.block_bytes
        return Observation(codec, kv_bytes, event.bytes, event.seconds - event.decode_s, total_s)


def pulls(rounds: int) -> list[Row]:
    pair = Pair()
    profiles = [measured_profile(pair.source, codec) for codec in (Codec.FP8, Codec.INT8)]
    choice = CodecChoice(profiles)
    best: dict[Codec, float] = {}
    for number in range(rounds + 1):
        for codec in Codec:
            seen = pair.pull(codec)
            if number:
                best[codec] = min(best.get(codec, seen.total_s), seen.total_s)
                choice.observe(PEER, seen)
    chosen = choice.choose(PEER, PULL_BLOCKS * pair.source.block_bytes)
    pair.taker.stop()
    pair.giver.stop()
    return [
        {
            "codec": codec,
            "best_ms": 1e3 * seconds,
            "link_gbit_per_s": 8e-9 * choice.link_bytes_per_s(PEER),
            "chosen": "yes" if codec is chosen else "",
        }
        for codec, seconds in best.items()
    ]


def over(link: str, rounds: int) -> list[Row]:
    """In a process of its own, because UCX reads its environment once."""
    done = subprocess.run(
        [sys.executable, __file__, "--pulls", "--rounds", str(rounds)],
        env={**os.environ, **LINKS[link]}, check=True, stdout=subprocess.PIPE, timeout=600,
    )  # fmt: skip
    found: list[Row] = json.loads(done.stdout.splitlines()[-1])
    return [{"link": link, **row} for row in found]


def show(title: str, found: list[Row]) -> None:
    table = Table(title=title, title_justify="left")
    for name in found[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in found:
        table.add_row(*(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()))
    Console(width=120).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pulls", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.pulls:
        print(json.dumps(pulls(arguments.rounds)))
        return
    results = {
        "kernels": kernels(),
        "pulls": [row for link in LINKS for row in over(link, arguments.rounds)],
    }
    for title, found in results.items():
        show(title, found)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
