"""A simulation's memory grows by a row of numbers with each request, and by nothing else."""

import gc
import tracemalloc

import pytest

from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Pools, RouterConfig
from tercet.simulator import EngineModel, IdealModel, SimulationOptions, simulate
from tercet.simulator.traces import Arrival, Trace
from tercet.simulator.traces.replayed import Replayed

ROW_BYTES_MAX = 80
EARLY, LATE = 1024, 3072
"""Requests that have ended; by then nothing else fills up any more."""


@pytest.mark.parametrize("model", [IdealModel(), EngineModel()], ids=["ideal", "engine"])
def test_a_request_leaves_a_row_of_numbers_and_nothing_else(model):
    held: dict[int, int] = {}

    def watch(ended: int, now_s: float) -> None:
        if ended in (EARLY, LATE):
            gc.collect()
            held[ended] = tracemalloc.get_traced_memory()[0]

    def never_whole():
        return (Arrival(0.1 * i, 64, 1, (i % 50,)) for i in range(LATE + 100))

    config = ClusterConfig(
        model=ModelConfig(path="none"),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=2)),
        router=RouterConfig(policy="round_robin"),
    )
    tracemalloc.start()
    trace = Trace("long", 64, Replayed(never_whole))
    results = simulate(config, trace, SimulationOptions(model=model), watch)
    tracemalloc.stop()
    assert results.requests == LATE + 100
    assert (held[LATE] - held[EARLY]) / (LATE - EARLY) < ROW_BYTES_MAX
