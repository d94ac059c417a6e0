"""What an operator asks for that cannot be, and why. Pure."""

from tercet.cluster.seat import Phase, Seat, seat_index
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
    if _decodes_up(state) == [seat]:
        return "it is the only decode worker that is up, so its requests have nowhere to go"
    return ""


def why_not_scale(state: ClusterState, pools: Pools, prefill: int, decode: int) -> str:
    """Empty when the pools may have so many workers; `pools` are those of the cluster file."""
    if prefill < 0 or decode < 0:
        return "a pool cannot have less than no worker"
    if not decode:
        return "without a decode worker nothing is served; end the cluster with `tercet down`"
    if prefill and not pools.prefill.replicas:
        return "the cluster file has no prefill pool; give it one and start the cluster anew"
    up = _decodes_up(state)
    if up and all(seat_index(seat.worker) >= decode for seat in up):
        return f"none of the decode workers that would stay is up; {up[0].worker} is"
    return ""


def _decodes_up(state: ClusterState) -> list[Seat]:
    return [s for s in state.seats.values() if s.role is Role.DECODE and s.phase is Phase.UP]
