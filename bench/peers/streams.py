"""The client of served models: so many at once ask for a streamed completion after the other, and note when each word came."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

MODEL = "bench"
TIMEOUT_S = 300.0
END_OF_EVENT = b"\n\n"
DATA = b"data: "
DONE = b"[DONE]"

Tokens = list[int]


class Piece(msgspec.Struct):
    """What is looked at of a choice."""

    text: str = ""


class Chunk(msgspec.Struct):
    """As much of a stream's chunk as is looked at."""

    choices: list[Piece]


@dataclass(frozen=True, slots=True)
class Answer:
    """One request, as its client saw it."""

    sent_s: float
    came_s: tuple[float, ...]
    """When each event with text came."""
    words: tuple[str, ...]

    @property
    def ttft_s(self) -> float:
        return self.came_s[0] - self.sent_s

    @property
    def gaps_s(self) -> list[float]:
        """Between one event and the next."""
        return [
            later - earlier for earlier, later in zip(self.came_s, self.came_s[1:], strict=False)
        ]


async def ask_all(
    url: str, prompts: Sequence[Tokens], *, at_once: int, output_tokens: int
) -> list[Answer]:
    """Answers, in the order of prompts. Raises ConnectionError when one of them fails."""
    answers: list[Answer | None] = [None] * len(prompts)
    waiting = iter(enumerate(prompts))
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(TIMEOUT_S)

    async def client(http: aiohttp.ClientSession, turns: Iterator[tuple[int, Tokens]]) -> None:
        for index, prompt in turns:
            answers[index] = await ask(http, url, prompt, output_tokens)

    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as http,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(at_once):
                group.create_task(client(http, waiting))
    except* (aiohttp.ClientError, OSError, TimeoutError) as failures:
        raise ConnectionError(f"a request failed: {failures.exceptions[0]!r}") from failures
    return [answer for answer in answers if answer is not None]


async def ask(http: aiohttp.ClientSession, url: str, prompt: Tokens, output_tokens: int) -> Answer:
    """One greedy completion. Chunks are noted as they come and read afterwards, to take little of what servers need."""
    body = msgspec.json.encode(
        {
            "model": MODEL,
            "prompt": prompt,
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
    )
    headers = {"content-type": "application/json"}
    received: list[tuple[float, bytes]] = []
    sent_s = time.perf_counter()
    async with http.post(f"{url}/v1/completions", data=body, headers=headers) as answer:
        async for data in answer.content.iter_any():
            received.append((time.perf_counter(), data))
        if answer.status != 200:
            said = b"".join(data for _, data in received)
            raise ConnectionError(f"{answer.status} {said[:300]!r}")
    return read(sent_s, received, output_tokens)


def read(sent_s: float, received: list[tuple[float, bytes]], output_tokens: int) -> Answer:
    """What came, by events. Raises ConnectionError for a stream that has too few words or no end."""
    rest, came_s, texts, ended = b"", [], [], False
    for at_s, data in received:
        *events, rest = (rest + data).split(END_OF_EVENT)
        for event in events:
            payload = event.removeprefix(DATA)
            if payload == DONE:
                ended = True
            elif payload == event:
                continue  # a comment
            elif text := "".join(
                piece.text for piece in msgspec.json.decode(payload, type=Chunk).choices
            ):
                came_s.append(at_s)
                texts.append(text)
    words = tuple("".join(texts).split())
    if not ended or len(words) != output_tokens:
        raise ConnectionError(f"{len(words)} words, end {ended}: {received[-1:]!r}")
    return Answer(sent_s, tuple(came_s), words)
