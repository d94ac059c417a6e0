"""What the cluster's state is told: the wish of the operator, and what became of processes.

Every event about a process names its incarnation, so that news of a former life is recognised and ignored.
"""

from dataclasses import dataclass

from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint


@dataclass(frozen=True, slots=True)
class Found:
    """A worker from before this controller's life. Without an endpoint it has not finished starting."""

    worker: WorkerId
    incarnation: Incarnation
    endpoint: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Desired:
    """How many workers each pool should have. Nothing is published before the first of these."""

    prefill: int
    decode: int
    at_once: bool = False
    """Whoever is too many is stopped with what it has, and not drained: there is nobody who could take it."""

    def of(self, role: Role) -> int:
        return self.prefill if role is Role.PREFILL else self.decode


@dataclass(frozen=True, slots=True)
class Placed:
    """Ray found a place: the process runs and loads its model."""

    worker: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """The worker listens at its endpoint."""

    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The worker said that it cannot start, or took too long."""

    worker: WorkerId
    incarnation: Incarnation
    reason: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The process died, or lives without answering."""

    worker: WorkerId
    incarnation: Incarnation
    reason: str


@dataclass(frozen=True, slots=True)
class Drain:
    """This life of the worker is to end once nothing runs on it any more; where it is wanted, another one follows."""

    worker: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Drained:
    """A worker that was to be drained has nothing left, or, for too long, what `left` says."""

    worker: WorkerId
    incarnation: Incarnation
    left: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A worker that was told to stop is gone."""

    worker: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class VersionSeen:
    """A front door holds membership of this version; only news with a higher one will reach it."""

    version: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    Found
    | Desired
    | Placed
    | WorkerUp
    | StartFailed
    | WorkerLost
    | Drain
    | Drained
    | Stopped
    | VersionSeen
    | Tick
)
