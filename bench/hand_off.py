"""How long KV takes from prefill to decode worker, by prompt length, and how much of that is left when the prefill is done.

    python bench/hand_off.py [--rounds 9] [--json bench/results/hand_off.json]

The first prompt is one chunk long, so that its only pull is what the last pull of any longer prompt has to be: a hand-off
that overlaps with chunked prefill exposes about that, however long the prompt. *Beyond* is what it exposes besides.
"""

import argparse
import asyncio
import json
import os
import random
import tempfile
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

import checkpoint
from latency_added import TOKEN_IDS, median
from tercet.app import launch
from tercet.client import AsyncClient
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    Resources,
    RouterConfig,
    TransferConfig,
)

Row = dict[str, str | float]
CHUNK_TOKENS = 512
LENGTHS = [CHUNK_TOKENS, 1024, 2048, 4080]
console = Console(width=120)


async def measure(
    http_url: str, grpc: str, lengths: list[int], rounds: int
) -> list[dict[str, float]]:
    """One row a prompt length, from the front door's own records of requests that ran one at a time."""
    dice = random.Random(5)
    rows = []
    async with AsyncClient(grpc) as client, httpx.AsyncClient(base_url=http_url) as http:
        for length in lengths:
            records = []
            for _ in range(rounds + 1):
                prompt = dice.choices(TOKEN_IDS, k=length)
                answer = await client.generate(
                    token_ids=prompt, max_tokens=4, temperature=0.0, ignore_eos=True
                )
                del answer
                recent = await http.get("/tercet/requests", params={"limit": 1})
                records.append(recent.raise_for_status().json()[0])
            pulled = [record for record in records[1:] if record["pulled_bytes"]]
            assert pulled, f"no prompt of {length} tokens was handed off"
            rows.append(
                {
                    "prompt_tokens": length,
                    "pulled_mib": median(r["pulled_bytes"] for r in pulled) / 2**20,
                    "pull_ms": median(r["pull_ms"] for r in pulled),
                    "gb_per_s": median(r["pulled_bytes"] / r["pull_ms"] / 1e6 for r in pulled),
                    "exposed_ms": median(r["pull_exposed_ms"] for r in pulled),
                    "ttft_ms": median(r["ttft_ms"] for r in pulled),
                }
            )
    return rows


def run(http_url: str, grpc: str, lengths: list[int], rounds: int) -> list[dict[str, float]]:
    return asyncio.run(measure(http_url, grpc, lengths, rounds))


def cluster_config(model: Path) -> ClusterConfig:
    """One prefill and one decode worker, and nothing is prefilled where it is decoded."""
    light = Resources(cpus=0.1)
    return ClusterConfig(
        name="bench",
        model=ModelConfig(path=str(model), name="bench"),
        engine=EngineConfig(kv_blocks=2048, step_tokens_max=CHUNK_TOKENS),
        pools=Pools(
            prefill=PoolConfig(replicas=1, resources=light),
            decode=PoolConfig(replicas=1, resources=light),
        ),
        router=RouterConfig(local_prefill_tokens_max=0),
        transfer=TransferConfig(net_devices="lo"),
        front_door=FrontDoorConfig(http_port=0, grpc_port=0, cpus=0.1),
    )


def overlap(rounds: int) -> list[Row]:
    """Rows of a cluster of its own, each with the last chunk's pull and what is exposed beyond it."""
    with tempfile.TemporaryDirectory() as directory:
        model = checkpoint.llama(Path(directory) / "model", hidden=256, layers=8)
        with launch(cluster_config(model), report=console.log) as cluster:
            grpc = cluster.wait_ready(console.log).front_doors[0].grpc
            found = run(f"http://{cluster.http}", grpc, LENGTHS, rounds)
    chunk_ms = found[0]["pull_ms"]
    return [
        {**row, "last_chunk_ms": chunk_ms, "beyond_ms": row["exposed_ms"] - chunk_ms}
        for row in found
    ]


def over(link: str, rounds: int) -> list[Row]:
    if link == "tcp":
        os.environ["UCX_TLS"] = "tcp"  # workers inherit it
    return [{"link": link, **row} for row in overlap(rounds)]


def show(found: list[Row]) -> None:
    table = Table(title="hand-off", title_justify="left")
    for name in found[0]:
        table.add_column(name.replace("_", " "), justify="right")
    for row in found:
        table.add_row(*(f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = [row for link in ("shared memory", "tcp") for row in over(link, arguments.rounds)]
    show(found)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
