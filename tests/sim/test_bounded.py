"""A simulation's memory grows by a row of numbers with each request, and by nothing else."""

import tracemalloc

from tercet.config import ClusterConfig, ModelConfig, PoolConfig, Pools, RouterConfig
from tercet.simulator import SimulationOptions, simulate
from tercet.simulator.traces import Arrival, Trace
from tercet.simulator.traces.replayed import Replayed

ROW_BYTES_MAX = 120


def peak_bytes(requests: int) -> int:
    """While a trace that is never whole in memory is replayed."""

    def walk():
        return (Arrival(0.1 * i, 64, 1, (i % 50,)) for i in range(requests))

    config = ClusterConfig(
        model=ModelConfig(path="none"),
        pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=2)),
        router=RouterConfig(policy="round_robin"),
    )
    tracemalloc.start()
    results = simulate(config, Trace("long", 64, Replayed(walk)), SimulationOptions(seed=1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert results.requests == requests
    return peak


def test_a_request_leaves_a_row_of_numbers_and_nothing_else():
    peak_bytes(100)  # whatever is loaded and cached once
    few, many = peak_bytes(500), peak_bytes(2500)
    assert (many - few) / 2000 < ROW_BYTES_MAX
