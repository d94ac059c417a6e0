"""What the controller says about the cluster: plain structs, for `tercet status` and for machines.

The figures of workers and front doors come from processes whose code this part does not import; they are decoded by field
name, and a field that the sender does not know keeps its default.
"""

import msgspec

from tercet.cluster.seat import Phase
from tercet.ids import FrontDoorId, Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import LoadReport


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker process says about itself."""

    load: LoadReport | None = None
    sessions: int = 0
    """Front doors connected."""
    pid: int = 0


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One seat as the controller sees it."""

    worker: WorkerId
    role: Role
    phase: Phase
    incarnation: Incarnation
    address: str = ""
    """`host:port` while it is up."""
    phase_s: float
    """Seconds since the last change of phase."""
    restarts: int = 0
    failures: int = 0
    """In a row."""
    crash_looping: bool = False
    reason: str = ""
    """Why the last life ended, or what keeps Ray from placing this one."""
    figures: WorkerFigures | None = None
    """None when the worker is not up, or did not answer in time."""


class FrontDoorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one front-door replica says about itself with every poll."""

    front_door: FrontDoorId
    grpc: str
    """`host:port` of its gRPC server."""
    in_flight: int = 0
    waiting: int = 0
    finished: int = 0
    failed: int = 0
    replays: int = 0
    workers: int = 0
    """Workers it has a session with."""
    membership_version: int = 0
    pid: int = 0


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cluster at one moment."""

    cluster: str
    membership_version: int
    http: str
    """`host:port` of the HTTP entrance."""
    workers: list[WorkerReport]
    front_doors: list[FrontDoorReport]
    controller_pid: int
    story: list[str]
    """The last things that happened to workers, oldest first; times are the controller's monotonic seconds."""

    @property
    def ready(self) -> bool:
        """Whether every wanted worker is up and every front door knows the current list."""
        return (
            bool(self.workers)
            and all(worker.phase is Phase.UP for worker in self.workers)
            and bool(self.front_doors)
            and all(door.membership_version >= self.membership_version for door in self.front_doors)
        )
