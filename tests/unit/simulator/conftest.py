"""A small cluster of ideal machines and traces to replay on it."""

from collections.abc import Callable

import pytest

from tercet.config import (
    ClusterConfig,
    EngineConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    SloConfig,
)
from tercet.simulator.traces import Arrival, Trace

BLOCK_TOKENS = 100


@pytest.fixture
def cluster() -> Callable[..., ClusterConfig]:
    """Aggregated workers, unless there are prefill ones."""

    def made(
        workers: int = 1,
        *,
        prefill: int = 0,
        policy: str = "round_robin",
        kv_blocks: int = 1000,
        ttft_ms: float = 1000.0,
        start_within_s: float = 1000.0,
    ) -> ClusterConfig:
        return ClusterConfig(
            model=ModelConfig(path="none"),
            pools=Pools(prefill=PoolConfig(replicas=prefill), decode=PoolConfig(replicas=workers)),
            engine=EngineConfig(
                block_tokens=BLOCK_TOKENS, kv_blocks=kv_blocks, start_within_s=start_within_s
            ),
            router=RouterConfig(policy=policy),
            slo=SloConfig(ttft_ms=ttft_ms),
        )

    return made


@pytest.fixture
def open_trace() -> Callable[..., Trace]:
    """Of (time, tokens) or (time, tokens, name of the prefix)."""

    def made(*requests: tuple[float, int] | tuple[float, int, int]) -> Trace:
        return Trace("made", BLOCK_TOKENS, tuple(map(arrival, requests)))

    def arrival(request: tuple[float, int] | tuple[float, int, int]) -> Arrival:
        at_s, tokens = request[:2]
        prefix = request[2] if len(request) == 3 else 1_000_000 + hash(at_s) % 2**50
        return Arrival(
            at_s, tokens, 1, tuple(1000 * prefix + i for i in range(tokens // BLOCK_TOKENS))
        )

    return made
