"""Workers are drained and pools made smaller while clients ask without end: nobody notices, and every answer is the right one."""

import asyncio
import subprocess
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from tercet.client import AsyncClient

CLIENTS = 20
PROMPTS = 5
MAX_TOKENS = 160

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class WorkerLife(Protocol):
    """One life of a worker."""

    worker: str
    incarnation: str


class RunningCluster(Protocol):
    """What these tests use of the fixture."""

    grpc: str

    def worker(self, name: str) -> WorkerLife: ...
    def wait_until_back(self, former: WorkerLife) -> WorkerLife: ...
    def scale(self, decode: int) -> None: ...
    def story(self) -> list[str]: ...
    def records(self, limit: int = 1000) -> list[dict[str, Any]]: ...
    def assert_empty(self) -> None: ...
    def note(self, run_dir: Path) -> None: ...


class Reference(Protocol):
    def __call__(
        self, prompt: list[int], max_tokens: int, *, temperature: float, seed: int
    ) -> list[int]: ...


def prompt(number: int) -> list[int]:
    return [40 + (number * 31 + 7 * position) % 360 for position in range(60 + 40 * number)]


@pytest.fixture(scope="module")
def expected(reference: Reference) -> list[list[int]]:
    """What transformers says to each prompt; the odd ones are drawn, with their number as the seed."""
    return [
        reference(prompt(number), MAX_TOKENS, temperature=0.7 * (number % 2), seed=number)
        for number in range(PROMPTS)
    ]


@dataclass
class Crowd:
    """Clients that stream one answer after the other until they are told to stop."""

    cluster: RunningCluster
    expected: list[list[int]]
    answers: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)
    """Every client has had tokens."""
    stopping: bool = False

    async def during(self, event: Awaitable[object]) -> None:
        """Ask while that happens, from when everybody is being served until it is over and their last answers are complete.
        Raises what any client was told that is not its answer."""
        async with AsyncClient(self.cluster.grpc) as client, asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._ask(client, number))
            await self.full.wait()
            await event
            self.stopping = True

    async def _ask(self, client: AsyncClient, number: int) -> None:
        while not self.stopping:
            which = number % PROMPTS
            options = {"temperature": 0.7 * (which % 2), "seed": which, "ignore_eos": True}
            got: list[int] = []
            stream = client.stream(token_ids=prompt(which), max_tokens=MAX_TOKENS, **options)
            async with stream:
                async for delta in stream:
                    got += delta.token_ids
                    self._served(number)
            assert got == self.expected[which], which
            self.answers += 1

    def _served(self, number: int) -> None:
        self._begun.add(number)
        if len(self._begun) == CLIENTS:
            self.full.set()

    def __post_init__(self) -> None:
        self._begun: set[int] = set()


def check_records(cluster: RunningCluster, answers: int) -> list[dict[str, Any]]:
    """Every request ended well and was never begun anew; returns the moves that succeeded."""
    records = cluster.records(answers)
    assert {record["outcome"] for record in records} == {"length"}
    assert sum(record["replays"] for record in records) == 0
    return [move for record in records for move in record["moves"] if not move["reason"]]


def test_a_worker_is_drained_under_load_and_comes_back_empty_handed(
    cluster: RunningCluster, expected: list[list[int]], environment: dict[str, str], tmp_path: Path
) -> None:
    cluster.note(tmp_path)
    before = cluster.worker("decode-0")

    def drain() -> "subprocess.CompletedProcess[str]":
        command = ["tercet", "drain", "decode-0", "--run-dir", str(tmp_path)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    async def ask_and_drain() -> tuple[Crowd, "subprocess.CompletedProcess[str]"]:
        crowd = Crowd(cluster, expected)
        draining = asyncio.get_running_loop().create_future()

        async def event() -> None:
            draining.set_result(await asyncio.to_thread(drain))

        await crowd.during(event())
        return crowd, draining.result()

    crowd, told = asyncio.run(ask_and_drain())
    assert told.returncode == 0, told.stderr
    assert "decode-0 is to be drained" in told.stdout
    assert "decode-0 drained" in told.stdout, told.stdout
    moves = check_records(cluster, crowd.answers)
    assert {move["source"] for move in moves} == {"decode-0"}
    assert {move["destination"] for move in moves} == {"decode-1"}
    after = cluster.wait_until_back(before)
    assert after.incarnation != before.incarnation
    cluster.assert_empty()


@pytest.mark.long
def test_making_the_decode_pool_smaller_and_larger_again_costs_no_request(
    cluster: RunningCluster, expected: list[list[int]]
) -> None:
    async def breathe() -> None:
        for _ in range(2):
            await asyncio.to_thread(cluster.scale, 1)
            await asyncio.to_thread(cluster.scale, 2)

    async def ask_and_scale() -> Crowd:
        crowd = Crowd(cluster, expected)
        await crowd.during(breathe())
        return crowd

    crowd = asyncio.run(ask_and_scale())
    moves = check_records(cluster, min(crowd.answers, 1000))
    assert moves, "nothing was moved"
    assert {move["source"] for move in moves} == {"decode-1"}
    assert not any("stopped with" in line for line in cluster.story())
    cluster.assert_empty()


def test_what_cannot_be_done_is_refused_with_its_reason(
    cluster: RunningCluster, environment: dict[str, str], tmp_path: Path
) -> None:
    cluster.note(tmp_path)
    refused = subprocess.run(
        ["tercet", "scale", "--decode", "0", "--run-dir", str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "without a decode worker nothing is served" in refused.stderr
