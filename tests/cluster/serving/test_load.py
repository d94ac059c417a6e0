"""Hundreds of requests of every kind: each answer is what one process with transformers would have said.

Long and short prompts with shared prefixes, greedy and seeded, streamed and whole, over HTTP and gRPC; a tenth of the
clients leave at a random moment, and workers are killed. Afterwards every worker is empty.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest
from openai import AsyncOpenAI

from tercet.client import AsyncClient

CONCURRENT = 24
TOKEN_IDS = range(40, 400)
MODEL = "demo"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class RunningCluster(Protocol):
    """What these tests use of the fixture."""

    http_url: str
    grpc: str

    def worker(self, name: str) -> "WorkerLife": ...
    def wait_until_back(self, former: "WorkerLife") -> "WorkerLife": ...
    def records(self, limit: int = 1000) -> list[dict[str, Any]]: ...
    def assert_empty(self) -> None: ...


class WorkerLife(Protocol):
    """One life of a worker."""

    worker: str
    incarnation: str
    pid: int


class Reference(Protocol):
    def __call__(
        self, prompt: list[int], max_tokens: int, *, temperature: float, seed: int
    ) -> list[int]: ...


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


def jobs(count: int, seed: int) -> list[Job]:
    dice = random.Random(seed)
    prefixes = [dice.choices(TOKEN_IDS, k=length) for length in (16, 160, 640, 1_200)]

    def prompt() -> tuple[int, ...]:
        length = int(20 * 75 ** dice.random())  # 20 … 1,500, evenly in the logarithm
        shared = dice.choice(prefixes) if dice.random() < 0.5 else []
        own = max(length - len(shared), 4)
        return (*shared[: length - 4], *dice.choices(TOKEN_IDS, k=own))[:1_500]

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
        for _ in range(count)
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


class Load:
    """Runs jobs against a cluster, a bounded number at a time, and once does something in the midst of them."""

    def __init__(self, cluster: RunningCluster, midway: Callable[[], None] | None = None) -> None:
        self._cluster = cluster
        self._midway = midway
        self._ended = 0

    async def run(self, work: list[Job]) -> list[Answer]:
        """All answers of clients that stayed. Any error of any client is raised."""
        places = asyncio.Semaphore(CONCURRENT)
        async with (
            AsyncClient(self._cluster.grpc) as grpc,
            AsyncOpenAI(
                base_url=f"{self._cluster.http_url}/v1", api_key="none", max_retries=0, timeout=120
            ) as http,
        ):

            async def one(job: Job) -> Answer | None:
                async with places:
                    answer = await (over_grpc(grpc, job) if job.grpc else over_http(http, job))
                self._ended += 1
                if self._ended == len(work) // 4 and self._midway is not None:
                    self._midway()
                return answer

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(job)) for job in work]
        return [answer for task in tasks if (answer := task.result()) is not None]


def check(answers: list[Answer], reference: Reference, decode: Callable[[list[int]], str]) -> None:
    for answer in answers:
        job = answer.job
        expected = reference(
            list(job.prompt), job.max_tokens, temperature=job.temperature, seed=job.seed
        )
        if answer.token_ids is not None:
            assert answer.token_ids == expected, job
        assert answer.text == decode(expected), job


def test_every_answer_is_the_reference_and_nothing_is_left(
    cluster: RunningCluster, reference: Reference, decode: Callable[[list[int]], str]
) -> None:
    work = jobs(200, seed=11)
    answers = asyncio.run(Load(cluster).run(work))
    assert len(answers) == sum(job.leave_after is None for job in work), "a client got no answer"
    check(answers, reference, decode)
    records = cluster.records()
    assert sum(record["pulled_bytes"] for record in records) > 0, "nothing was handed off"
    assert {record["decode_worker"] for record in records} >= {"decode-0", "decode-1"}
    cluster.assert_empty()


@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_killing_a_worker_under_load_costs_no_request_and_it_is_used_again(
    cluster: RunningCluster,
    reference: Reference,
    decode: Callable[[list[int]], str],
    victim: str,
) -> None:
    before = cluster.worker(victim)
    work = [replace(job, leave_after=None) for job in jobs(80, seed=len(victim))]

    load = Load(cluster, midway=lambda: os.kill(before.pid, signal.SIGKILL))
    answers = asyncio.run(load.run(work))
    assert len(answers) == len(work)
    check(answers, reference, decode)
    after = cluster.wait_until_back(before)
    assert after.incarnation != before.incarnation
    check(asyncio.run(Load(cluster).run(jobs(30, seed=3))), reference, decode)
    used = {r[kind] for r in cluster.records(30) for kind in ("prefill_worker", "decode_worker")}
    assert victim in used, "it is back, but nobody asks it"
    cluster.assert_empty()
