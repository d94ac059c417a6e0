"""Clients that send jobs, read every token, and hold the answer against the true one."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from jobs import Job

from tercet.client import AsyncClient
from tercet.errors import TercetError

TIMEOUT_S = 120.0
"""Nobody waits longer: whoever does is an error, whatever the reason."""


@dataclass
class Tally:
    """What clients have seen."""

    requests: int = 0
    tokens: int = 0
    cancelled: int = 0
    errors: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)


class Crowd:
    """`concurrent` clients, each with one request after another. `truth` is learned in the calm and then required."""

    def __init__(self, grpc: str, jobs: Sequence[Job], concurrent: int, seed: int) -> None:
        self._grpc, self._jobs, self._concurrent = grpc, jobs, concurrent
        self._dice = random.Random(seed)
        self._truth: dict[int, list[int]] = {}
        self.running: set[str] = set()
        """The ids of requests that stream now."""
        self._numbers = 0

    async def learn(self) -> Tally:
        """Every job once, while nothing disturbs."""
        tally, queue = Tally(), list(self._jobs)

        async def client(session: AsyncClient) -> None:
            while queue:
                job = queue.pop()
                answer = await self._send(session, job, tally, leave_after=None)
                if answer is not None:
                    self._truth[job.number] = answer

        await self._everybody(client)
        return tally

    async def press(self, until_s: float, leave_share: float) -> Tally:
        """Jobs at random until then; a share of the clients leaves amid the answer."""
        tally = Tally()

        async def client(session: AsyncClient) -> None:
            while time.monotonic() < until_s:
                job = self._dice.choice(self._jobs)
                leaves = self._dice.random() < leave_share
                leave_after = self._dice.randint(0, job.max_tokens) if leaves else None
                answer = await self._send(session, job, tally, leave_after)
                if answer is not None and answer != self._truth[job.number]:
                    tally.mismatches.append(
                        f"job {job.number}: {first_difference(answer, self._truth[job.number])}"
                    )

        await self._everybody(client)
        return tally

    async def _everybody(
        self, client: Callable[[AsyncClient], Coroutine[None, None, None]]
    ) -> None:
        async with AsyncClient(self._grpc) as session, asyncio.TaskGroup() as group:
            for _ in range(self._concurrent):
                group.create_task(client(session))

    async def _send(
        self, session: AsyncClient, job: Job, tally: Tally, leave_after: int | None
    ) -> list[int] | None:
        """The whole answer; None for who left or was told of an error."""
        self._numbers += 1
        name = f"chaos-{self._numbers}"
        self.running.add(name)
        try:
            return await self._read(session, job, name, tally, leave_after)
        except (TercetError, TimeoutError) as exc:
            tally.errors.append(f"{name}, job {job.number}: {type(exc).__name__}: {exc}")
            return None
        finally:
            self.running.discard(name)

    async def _read(
        self, session: AsyncClient, job: Job, name: str, tally: Tally, leave_after: int | None
    ) -> list[int] | None:
        began_s = last_s = time.monotonic()
        answer: list[int] = []
        async with (
            asyncio.timeout(TIMEOUT_S),
            session.stream(
                token_ids=job.prompt,
                max_tokens=job.max_tokens,
                temperature=job.temperature,
                seed=job.seed,
                ignore_eos=True,
                request_id=name,
            ) as stream,
        ):
            async for delta in stream:
                now_s = time.monotonic()
                (tally.itl_s if answer else tally.ttft_s).append(now_s - last_s)
                last_s = now_s
                answer += delta.token_ids
                if leave_after is not None and len(answer) >= leave_after:
                    tally.cancelled += 1
                    return None
        tally.requests += 1
        tally.tokens += len(answer)
        tally.total_s.append(last_s - began_s)
        return answer


def first_difference(answer: Sequence[int], truth: Sequence[int]) -> str:
    """Where, and what."""
    for at, (one, other) in enumerate(zip(answer, truth, strict=False)):
        if one != other:
            return f"token {at} is {one}, should be {other}"
    return f"{len(answer)} tokens, should be {len(truth)}"
