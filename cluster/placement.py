"""What one worker reserves on Ray's nodes, and, when no node will have it, what is missing.

Ray places; this module only says in words why Ray has not placed yet, and how large a cluster of our own must be.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tercet.config import ClusterConfig, PoolConfig
from tercet.role import Role

SERVE_CPUS = 1.0
"""Kept for Ray Serve's own actors and for jobs beside us, in a cluster of our own."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """The resources and node labels of one worker, for all its processes. `labels` maps a label's name to a Ray selector."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]

    @classmethod
    def of(cls, pool: PoolConfig) -> "Bundle":
        want = {"CPU": pool.resources.cpus, "GPU": pool.resources.gpus, **pool.resources.custom}
        return cls({name: n for name, n in want.items() if n > 0}, pool.labels)

    @property
    def custom(self) -> dict[str, float]:
        """The resources that are neither CPU nor GPU, as Ray's actor option wants them."""
        return {name: n for name, n in self.resources.items() if name not in ("CPU", "GPU")}


@dataclass(frozen=True, slots=True)
class Node:
    """A living Ray node: all its resources, busy or not, and its labels."""

    resources: Mapping[str, float]
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Room:
    """The living nodes, and what is free on all of them together."""

    nodes: Sequence[Node]
    free: Mapping[str, float]


def selects(selector: str, value: str | None) -> bool:
    """Whether a label's value satisfies `v`, `!v`, `in(v,w)` or `!in(v,w)`; a missing label satisfies only negations."""
    negated = selector.startswith("!")
    body = selector.removeprefix("!").strip()
    if body.startswith("in(") and body.endswith(")"):
        choices = {choice.strip() for choice in body[3:-1].split(",")}
    else:
        choices = {body}
    return (value in choices) != negated


def lacks(bundle: Bundle, node: Node) -> list[str]:
    """What this node would need to hold the bundle when idle; empty when it could."""
    missing = [
        f"{name} {node.resources.get(name, 0):g} of {want:g}"
        for name, want in bundle.resources.items()
        if node.resources.get(name, 0) < want
    ]
    missing += [
        f"label {name}={selector}"
        for name, selector in bundle.labels.items()
        if not selects(selector, node.labels.get(name))
    ]
    return missing


def shortage(bundle: Bundle, room: Room) -> str:
    """What keeps a worker with this bundle from its place, in one line; empty when its process is merely starting."""
    if not room.nodes:
        return "there is no living node"
    nearest = min((lacks(bundle, node) for node in room.nodes), key=len)
    if nearest:
        return f"no node of {len(room.nodes)} can hold it; the nearest lacks {', '.join(nearest)}"
    taken = [
        f"{name} {room.free.get(name, 0):g} of {want:g}"
        for name, want in bundle.resources.items()
        if room.free.get(name, 0) < want
    ]
    return f"every node that could hold it is busy; free are {', '.join(taken)}" if taken else ""


def cpus_wanted(config: ClusterConfig) -> float:
    """Logical CPUs that everything the file asks for reserves together."""
    pools = [config.pools.of(role) for role in Role]
    workers = sum(pool.replicas * pool.resources.cpus for pool in pools)
    return workers + config.front_door.replicas * config.front_door.cpus + SERVE_CPUS
