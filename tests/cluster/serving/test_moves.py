"""Requests of every kind move back and forth between workers while they stream: their answers are those of requests left alone."""

import asyncio
import json
from typing import Any, Protocol

import httpx
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROMPT = [40 + 7 * position % 400 for position in range(150)]
MAX_TOKENS = 120
KINDS = {
    "greedy": {"temperature": 0},
    "seeded": {"temperature": 0.9, "seed": 7, "top_p": 0.95},
    "several choices": {"temperature": 0.8, "seed": 3, "n": 3},
    "logprobs": {"temperature": 0, "logprobs": 3},
    "penalties": {
        "temperature": 0.7,
        "seed": 5,
        "frequency_penalty": 0.6,
        "presence_penalty": 0.4,
        "logit_bias": {"100": 2.0},
    },
    "a stop string": {"temperature": 0.9, "seed": 11, "stop": ["the"]},
}


class RunningCluster(Protocol):
    """What these tests use of the fixture."""

    http_url: str

    def assert_empty(self) -> None: ...


async def answer(http: httpx.AsyncClient, kind: dict[str, Any], moves: list[int]) -> list[Any]:
    """The choices, put together from the stream; with `moves`, every choice is moved again and again meanwhile."""
    ignore_eos = "stop" not in kind
    body = {"model": "demo", "prompt": PROMPT, "max_tokens": MAX_TOKENS, "ignore_eos": ignore_eos}
    texts: dict[int, list[Any]] = {}
    mover: asyncio.Task[None] | None = None
    async with http.stream(
        "POST", "/v1/completions", json={**body, **kind, "stream": True}
    ) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if mover is None:
                mover = asyncio.create_task(move_on(http, chunk["id"], moves))
            for choice in chunk["choices"]:
                texts.setdefault(choice["index"], []).append(choice)
    if mover is not None:
        mover.cancel()
    return [joined(texts[index]) for index in sorted(texts)]


async def move_on(http: httpx.AsyncClient, request: str, moves: list[int]) -> None:
    while moves:
        reply = await http.post(f"/tercet/requests/{request}/move")
        moves[0] += reply.status_code == httpx.codes.ACCEPTED
        await asyncio.sleep(0.05)


def joined(pieces: list[Any]) -> tuple[Any, ...]:
    """Text, why it ended, and the log-probabilities of every token, rounded: sums in another batch differ in the last bits."""
    logprobs = [piece["logprobs"] for piece in pieces if piece.get("logprobs")]
    return (
        "".join(piece["text"] for piece in pieces),
        pieces[-1]["finish_reason"],
        [token for each in logprobs for token in each["tokens"]],
        [round(value, 3) for each in logprobs for value in each["token_logprobs"]],
    )


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_moved_says_what_who_is_not_says(cluster: RunningCluster, kind: str) -> None:
    moves = [0]
    async with httpx.AsyncClient(base_url=cluster.http_url, timeout=120) as http:
        alone = await answer(http, KINDS[kind], [])
        moved = await answer(http, KINDS[kind], moves)
    assert moved == alone
    assert moves[0] > 0, "nothing has moved"
    cluster.assert_empty()
