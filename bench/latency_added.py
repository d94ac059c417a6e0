"""What the cluster adds to the engine: TTFT and ITL of the same requests on a bare engine and through everything.

Both sides run in turn, in one process's lifetime, on the same checkpoint: the bare engine in this process with the same
threads as one worker, the cluster through its HTTP and gRPC entrances with one prefill and two decode workers.
"""

import asyncio
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tercet.client import AsyncClient
from tercet.clock import MonotonicClock
from tercet.config import ClusterConfig
from tercet.ids import FIRST_EPOCH, new_request_id
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.wire import Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import Run, Said
from tercet.workers.model_runner import ModelRunner

TOKEN_IDS = range(1, 250)


@dataclass
class Samples:
    """Seconds: one TTFT a request, one ITL for each later token."""

    ttft_s: list[float] = field(default_factory=list)
    itl_s: list[float] = field(default_factory=list)

    def add(self, started_s: float, arrivals_s: list[float]) -> None:
        """`arrivals_s` holds the time of each token; a frame with several counts its pause once, spread over them."""
        self.ttft_s.append(arrivals_s[0] - started_s)
        last_s, group = arrivals_s[0], 0
        for at_s in arrivals_s[1:]:
            group += 1
            if at_s > last_s:
                self.itl_s += [(at_s - last_s) / group] * group
                last_s, group = at_s, 0

    def extend(self, other: "Samples") -> None:
        self.ttft_s += other.ttft_s
        self.itl_s += other.itl_s


def quantile(values: Iterable[float], q: float) -> float:
    """Nearest rank; NaN without values."""
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)] if ordered else float("nan")


class Load:
    """Prompts that share nothing, so that no cache helps either side."""

    def __init__(self, prompt_tokens: int, max_tokens: int, seed: int) -> None:
        self._prompt_tokens = prompt_tokens
        self._dice = random.Random(seed)
        self.sampling = Sampling(max_tokens=max_tokens, ignore_eos=True)

    def prompt(self) -> list[int]:
        return self._dice.choices(TOKEN_IDS, k=self._prompt_tokens)


class BareEngine:
    """The engine in this thread, nothing around it."""

    def __init__(self, config: ClusterConfig) -> None:
        engine = config.engine_of(Role.DECODE)
        self._engine = Engine(ModelRunner.load(config.model, engine), engine, MonotonicClock())

    def measure(self, load: Load, concurrent: int) -> Samples:
        """All requests at once, to the end."""
        arrivals: dict[str, list[float]] = defaultdict(list)
        started: dict[str, float] = {}
        for _ in range(concurrent):
            spec = RequestSpec(new_request_id(), load.prompt(), load.sampling)
            started[spec.id] = time.perf_counter()
            self._engine.handle(Run(spec, FIRST_EPOCH, "bench"))
        while self._engine.has_work:
            for event in self._engine.step():
                if isinstance(event, Said) and isinstance(event.message, Tokens):
                    now_s = time.perf_counter()
                    arrivals[event.message.request] += [now_s] * len(event.message.tokens)
        samples = Samples()
        for request, times in arrivals.items():
            samples.add(started[request], times)
        assert len(samples.ttft_s) == concurrent, "the engine lost a request"
        return samples


async def through_cluster(grpc: str, load: Load, concurrent: int) -> Samples:
    """The same requests through the front door, streamed over gRPC."""
    samples = Samples()
    async with AsyncClient(grpc) as client:
        await client.models()  # the connection is not what is measured

        async def one(prompt: list[int]) -> None:
            started_s = time.perf_counter()
            times: list[float] = []
            async with client.stream(
                token_ids=prompt,
                max_tokens=load.sampling.max_tokens,
                temperature=0.0,
                ignore_eos=True,
            ) as stream:
                async for delta in stream:
                    times += [time.perf_counter()] * len(delta.tokens)
            assert len(times) == load.sampling.max_tokens, f"got {len(times)} tokens"
            samples.add(started_s, times)

        async with asyncio.TaskGroup() as group:
            for _ in range(concurrent):
                group.create_task(one(load.prompt()))
    return samples


def measure(
    config: ClusterConfig,
    grpc: str,
    *,
    concurrent: int,
    prompt_tokens: int,
    max_tokens: int,
    rounds: int,
) -> list[dict[str, str | float]]:
    """Both sides in turn, `rounds` times after a warm-up; one row a figure."""
    bare, engine, cluster = BareEngine(config), Samples(), Samples()
    load = Load(prompt_tokens, max_tokens, seed=concurrent)
    for number in range(rounds + 1):
        once = bare.measure(load, concurrent)
        through = asyncio.run(through_cluster(grpc, load, concurrent))
        if number > 0:
            engine.extend(once)
            cluster.extend(through)
    return [
        {
            "figure": f"{name} {label}, {concurrent} at once",
            "engine_ms": 1e3 * quantile(theirs, q),
            "cluster_ms": 1e3 * quantile(mine, q),
            "added_ms": 1e3 * (quantile(mine, q) - quantile(theirs, q)),
        }
        for name, mine, theirs in (
            ("TTFT", cluster.ttft_s, engine.ttft_s),
            ("ITL", cluster.itl_s, engine.itl_s),
        )
        for label, q in (("p50", 0.5), ("p99", 0.99))
    ]


def median(values: Iterable[float]) -> float:
    """NaN without values."""
    found = list(values)
    return statistics.median(found) if found else float("nan")
