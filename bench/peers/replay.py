"""The client: sends every request when its time has come, whatever became of the ones before, and reads the streams."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from turns import Turn

MODEL = "mock"
OUTPUT_TOKENS = 4
TIMEOUT_S = 120.0
DATA = b"data: {"


class Details(msgspec.Struct):
    cached_tokens: int = 0


class Usage(msgspec.Struct):
    prompt_tokens: int = 0
    prompt_tokens_details: Details | None = None


class Chunk(msgspec.Struct):
    """As much of a stream's chunk as is looked at."""

    choices: list[msgspec.Raw] = []
    usage: Usage | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What one request's client saw."""

    late_s: float
    """How long after its time the request was sent: what this client, or a busy machine, is to blame for."""
    ttft_s: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    error: str = ""


async def replay(url: str, turns: Sequence[Turn]) -> list[Reply]:
    """Every turn to the OpenAI-compatible server at `url`."""
    bodies = [body(turn.prompt) for turn in turns]
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        begun_s = time.perf_counter()

        async def one(turn: Turn, sent: bytes) -> Reply:
            await asyncio.sleep(max(0.0, begun_s + turn.at_s - time.perf_counter()))
            late_s = time.perf_counter() - begun_s - turn.at_s
            return await ask(http, url, sent, late_s)

        return await asyncio.gather(*map(one, turns, bodies))


async def warm(url: str, requests: int) -> None:
    """Open connections with requests too short to be cached; raises ConnectionError when one is not answered."""
    sent = body("x1 x2 x3")
    async with aiohttp.ClientSession() as http:
        for _ in range(requests):
            reply = await ask(http, url, sent, 0.0)
            if reply.error:
                raise ConnectionError(reply.error)


def body(prompt: str) -> bytes:
    """The same bytes for every server."""
    return msgspec.json.encode(
        {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": OUTPUT_TOKENS,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )


async def ask(http: aiohttp.ClientSession, url: str, sent: bytes, late_s: float) -> Reply:
    """One request; what goes wrong is said in the reply."""
    begun_s = time.perf_counter()
    ttft_s, usage = None, Usage()
    headers = {"content-type": "application/json"}
    try:
        async with http.post(f"{url}/v1/completions", data=sent, headers=headers) as answer:
            if answer.status != 200:
                return Reply(late_s, error=f"{answer.status} {(await answer.text())[:200]}")
            async for line in answer.content:
                if line.startswith(DATA):
                    chunk = msgspec.json.decode(line[len(DATA) - 1 :], type=Chunk)
                    if ttft_s is None and chunk.choices:
                        ttft_s = time.perf_counter() - begun_s
                    usage = chunk.usage or usage
    except (aiohttp.ClientError, TimeoutError) as exc:
        return Reply(late_s, error=f"{type(exc).__name__}: {exc}")
    if ttft_s is None or not usage.prompt_tokens:
        return Reply(late_s, error="the stream ended without a token or without usage")
    cached_tokens = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    return Reply(late_s, ttft_s, usage.prompt_tokens, cached_tokens)
