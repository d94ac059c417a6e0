"""What an operator asks for that cannot be, and why. Pure."""

from tercet.cluster.seat import Phase
from tercet.cluster.state import ClusterState
from tercet.config import Pools
from tercet.ids import WorkerId
from tercet.role import Role


def why_not_drain(state: ClusterState, worker: WorkerId) -> str:
    """Empty when the worker can be drained."""
    seat = state.seats.get(worker)
    if seat is None:
        return f"there is no such worker; there are {', '.join(state.seats)}"
    if seat.phase is not Phase.UP:
        return f"it is {seat.phase}; only a worker that is up can be drained"
    decodes = [s for s in state.seats.values() if s.role is Role.DECODE and s.phase is Phase.UP]
    if decodes == [seat]:
        return "it is the only decode worker that is up, so its requests have nowhere to go"
    return ""


def why_not_scale(pools: Pools, prefill: int, decode: int) -> str:
    """Empty when the pools may have so many workers; `pools` are those of the cluster file."""
    if prefill < 0 or decode < 0:
        return "a pool cannot have less than no worker"
    if not decode:
        return "without a decode worker nothing is served; end the cluster with `tercet down`"
    if prefill and not pools.prefill.replicas:
        return "the cluster file has no prefill pool; give it one and start the cluster anew"
    return ""
