"""An OpenAI-compatible worker without a model, for routers that speak HTTP to their workers.

    python mock_worker.py SETTINGS     prints its port, answers each line on stdin with its request count, ends with stdin

Prefill is serialised, first come first served, and sleeps for each word that its block-wise LRU prefix cache lacks; decode
sleeps for each token and disturbs nobody. A prompt is in the cache from the moment it arrives.
"""

import asyncio
import logging
import sys
import time
from collections import OrderedDict

import msgspec
from aiohttp import web

from timing import Timing
from turns import ANSWER

MODEL = "mock"
BODY_BYTES_MAX = 64 * 2**20


class PrefixCache:
    """Which blocks are there, least recently used first; a block's name covers everything before it."""

    def __init__(self, blocks_max: int, block_words: int) -> None:
        self._blocks_max, self._block_words = blocks_max, block_words
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def take(self, words: list[str]) -> int:
        """How many leading words are cached; afterwards all full blocks are."""
        names, size = [0], self._block_words
        for start in range(0, len(words) - size + 1, size):
            names.append(hash((names[-1], *words[start : start + size])))
        del names[0]
        hits = next((n for n, name in enumerate(names) if name not in self._blocks), len(names))
        for name in reversed(
            names
        ):  # so that the ends of prompts are forgotten before their beginnings
            self._blocks[name] = None
            self._blocks.move_to_end(name)
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)
        return hits * size


class MockWorker:
    """One worker's state and its completion endpoint."""

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._cache = PrefixCache(timing.kv_blocks, timing.block_tokens)
        self._prefill = asyncio.Lock()
        self.requests = 0

    async def completions(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        body = await request.json()
        words = body["prompt"].split()
        cached = min(self._cache.take(words), len(words) - 1)
        async with self._prefill:
            await asyncio.sleep((len(words) - cached) * self._timing.prefill_s)
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(request)
        for number in range(body["max_tokens"]):
            last = number == body["max_tokens"] - 1
            choice = {"index": 0, "text": ANSWER, "finish_reason": "length" if last else None}
            await stream.write(self._chunk([choice], None))
            await asyncio.sleep(self._timing.decode_step_s)
        usage = {
            "prompt_tokens": len(words),
            "completion_tokens": body["max_tokens"],
            "total_tokens": len(words) + body["max_tokens"],
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        await stream.write(self._chunk([], usage) + b"data: [DONE]\n\n")
        await stream.write_eof()
        return stream

    def _chunk(self, choices: list[object], usage: object) -> bytes:
        chunk = {
            "id": f"cmpl-{self.requests}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": MODEL,
            "choices": choices,
            "usage": usage,
        }
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def application(worker: MockWorker, timing: Timing) -> web.Application:
    """What routers ask a worker before they trust it, besides completions."""
    info = {
        "model_path": MODEL,
        "served_model_name": MODEL,
        "tokenizer_path": MODEL,
        "is_generation": True,
        "tp_size": 1,
        "dp_size": 1,
        "max_total_num_tokens": timing.kv_blocks * timing.block_tokens,
    }
    card = {
        "id": MODEL,
        "object": "model",
        "created": 1,
        "owned_by": "mock",
        "max_model_len": 2**17,
    }
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_post("/v1/completions", worker.completions)
    app.router.add_get("/v1/models", _says({"object": "list", "data": [card]}))
    for path in ("/health", "/health_generate"):
        app.router.add_get(path, _says({}))
    for path in ("/server_info", "/get_server_info", "/model_info", "/get_model_info"):
        app.router.add_get(path, _says(info))
    return app


def _says(reply: object):  # type: ignore[no-untyped-def]  # aiohttp's own type is a union of everything
    async def handler(request: web.Request) -> web.Response:
        return web.json_response(reply)

    return handler


async def main(timing: Timing) -> None:
    worker = MockWorker(timing)
    runner = web.AppRunner(application(worker, timing), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(worker.requests, flush=True)
    await runner.cleanup()


if __name__ == "__main__":
    logging.getLogger("aiohttp.server").setLevel(
        logging.CRITICAL
    )  # a router that tries HTTP/2 first
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Timing)))
