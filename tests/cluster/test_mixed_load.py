"""Two hundred requests of every kind at once: each answer is what one process with transformers would have said.

Long and short prompts with shared prefixes, greedy and seeded, streamed and whole, over HTTP and gRPC; a tenth of the
clients leave at a random moment. Afterwards every worker is empty.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
from openai import AsyncOpenAI

from tercet.client import AsyncClient

REQUESTS = 200
CONCURRENT = 24
MODEL = "demo"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Job:
    """One request of the load. `leave_after` is the number of pieces after which the client goes away."""

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    seed: int
    stream: bool
    grpc: bool
    leave_after: int | None


@dataclass(frozen=True)
class Answer:
    job: Job
    text: str
    token_ids: list[int] | None
    """None over HTTP, which speaks text."""


def jobs(vocabulary: range, seed: int) -> list[Job]:
    dice = random.Random(seed)
    prefixes = [dice.choices(vocabulary, k=length) for length in (16, 160, 640, 1_200)]

    def prompt() -> tuple[int, ...]:
        length = int(20 * 75 ** dice.random())  # 20 … 1,500, evenly in the logarithm
        shared = dice.choice(prefixes) if dice.random() < 0.5 else []
        own = max(length - len(shared), 4)
        return (*shared[: length - 4], *dice.choices(vocabulary, k=own))[:1_500]

    return [
        Job(
            prompt=prompt(),
            max_tokens=dice.randint(1, 40),
            temperature=dice.choice([0.0, 0.0, 0.9]),
            seed=dice.randrange(2**31),
            stream=dice.random() < 0.7,
            grpc=dice.random() < 0.5,
            leave_after=dice.randint(0, 8) if dice.random() < 0.1 else None,
        )
        for _ in range(REQUESTS)
    ]


async def over_grpc(client: AsyncClient, job: Job) -> Answer | None:
    options = {
        "max_tokens": job.max_tokens,
        "temperature": job.temperature,
        "seed": job.seed,
        "ignore_eos": True,
    }
    if not job.stream and job.leave_after is None:
        choice = (await client.generate(token_ids=job.prompt, **options)).choices[0]
        return Answer(job, choice.text, choice.token_ids)
    text, ids, pieces = "", [], 0
    async with client.stream(token_ids=job.prompt, **options) as stream:
        if job.leave_after == 0:
            return None
        async for delta in stream:
            text, ids, pieces = text + delta.text, ids + delta.token_ids, pieces + 1
            if pieces == job.leave_after:
                return None
    return Answer(job, text, ids) if job.leave_after is None else None


async def over_http(client: AsyncOpenAI, job: Job) -> Answer | None:
    options = {
        "model": MODEL,
        "prompt": list(job.prompt),
        "max_tokens": job.max_tokens,
        "temperature": job.temperature,
        "seed": job.seed,
        "extra_body": {"ignore_eos": True},
    }
    if not job.stream and job.leave_after is None:
        return Answer(job, (await client.completions.create(**options)).choices[0].text, None)
    text, pieces = "", 0
    async with await client.completions.create(stream=True, **options) as stream:
        async for chunk in stream:
            text, pieces = text + "".join(c.text for c in chunk.choices), pieces + 1
            if job.leave_after is not None and pieces >= job.leave_after:
                return None
    return Answer(job, text, None) if job.leave_after is None else None


async def run(http_url: str, grpc: str, work: list[Job]) -> list[Answer]:
    places = asyncio.Semaphore(CONCURRENT)
    async with (
        AsyncClient(grpc) as grpc_client,
        AsyncOpenAI(base_url=f"{http_url}/v1", api_key="none", max_retries=0, timeout=120) as http,
    ):

        async def one(job: Job) -> Answer | None:
            async with places:
                return await (over_grpc(grpc_client, job) if job.grpc else over_http(http, job))

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(job)) for job in work]
    return [answer for task in tasks if (answer := task.result()) is not None]


def test_every_answer_is_the_reference_and_nothing_is_left(
    cluster, reference: Callable[..., list[int]], decode: Callable[[list[int]], str], empty_workers
) -> None:
    work = jobs(range(40, 400), seed=11)
    answers = asyncio.run(run(cluster.http_url, cluster.grpc, work))
    assert len(answers) >= 0.8 * REQUESTS, "more clients left than were told to"
    for answer in answers:
        job = answer.job
        expected = reference(
            list(job.prompt), job.max_tokens, temperature=job.temperature, seed=job.seed
        )
        if answer.token_ids is not None:
            assert answer.token_ids == expected, job
        assert answer.text == decode(expected), job
    records = httpx.get(f"{cluster.http_url}/tercet/requests", params={"limit": 1000}).json()
    assert any(record["pulled_bytes"] for record in records), "nothing was handed off"
    empty_workers()
