"""Equal inputs give equal bytes, in another process too, whose sets of names have another order."""

import os
import subprocess
import sys

import pytest

REPLAY = """
import sys
from tercet.config import ClusterConfig, EngineConfig, ModelConfig, PoolConfig, Pools, RouterConfig
from tercet.ids import WorkerId
from tercet.simulator import Failure, SimulationOptions, simulate
from tercet.simulator.traces import ReadOptions, Workload, generated
from tercet.simulator.traces.lengths import Fixed, Lognormal
from tercet.simulator.traces.synthetic import Client, SystemPrompts

client = Client(
    name="chat", starts_per_s=4, cv=2, input=Lognormal(400, 4000), output=Fixed(3), turns=Fixed(4), think_s=5,
    system=SystemPrompts(5, 500),
)
trace = generated(Workload(clients=[client]), ReadOptions(block_tokens=64, seed=3, span_s=40))
config = ClusterConfig(
    model=ModelConfig(path="none"),
    pools=Pools(prefill=PoolConfig(replicas=2), decode=PoolConfig(replicas=3)),
    engine=EngineConfig(block_tokens=64, kv_blocks=2000, start_within_s=0.5),
    router=RouterConfig(policy=sys.argv[1]),
)
options = SimulationOptions(
    front_doors=3, report_age_s=0.25, estimate_noise=0.2, network_s=1e-3, seed=int(sys.argv[2]),
    failures=(Failure(WorkerId("decode-1"), 10.0, 5.0), Failure(WorkerId("prefill-0"), 20.0)),
)
sys.stdout.buffer.write(simulate(config, trace, options).json())
"""


def replayed(policy: str, seed: int, hash_seed: int) -> bytes:
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", REPLAY, policy, str(seed)]
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


@pytest.mark.parametrize("policy", ["dualmap", "prefix_affinity", "power_of_two"])
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(policy):
    first = replayed(policy, seed=1, hash_seed=1)
    assert len(first) > 1000
    assert replayed(policy, seed=1, hash_seed=2) == first
    assert replayed(policy, seed=2, hash_seed=1) != first
