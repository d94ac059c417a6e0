"""How long KV takes from prefill to decode worker, by prompt length, on a running cluster."""

import asyncio
import random

import httpx

from latency_added import TOKEN_IDS, median
from tercet.client import AsyncClient


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
