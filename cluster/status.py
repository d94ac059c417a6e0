"""What the controller says about the cluster: plain structs, for `tercet status` and for machines.

The figures of workers and front doors come from processes whose code this part does not import; they are decoded by field
name, and a field that the sender does not know keeps its default.
"""

import msgspec

from tercet.cluster.seat import Phase
from tercet.ids import FrontDoorId, Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Accuracy, LoadFigures


class WorkerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says about itself."""

    load: LoadFigures
    sessions: int = 0
    """Front doors connected."""
    departures: int = 0
    """Requests to be handed off from here."""
    arrivals: int = 0
    """Hand-offs on their way here."""
    committed: int = 0
    """Hand-offs since the start that ended with their KV here."""
    recomputed: int = 0
    """Hand-offs since the start whose KV did not arrive and was computed here."""

    @property
    def left(self) -> str:
        """What it has of anybody's requests, in words; empty when there is nothing."""
        load = self.load
        counts = (
            (load.waiting, "waiting"),
            (load.running, "running"),
            (load.holding, "held"),
            (load.pulling, "being pulled"),
            (self.departures, "leaving"),
            (self.arrivals, "arriving"),
        )
        return ", ".join(f"{count} {what}" for count, what in counts if count)


class ProcessFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's process says about itself."""

    pid: int
    up_s: float = 0.0
    worker: WorkerFigures | None = None


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One seat as the controller sees it."""

    worker: WorkerId
    role: Role
    phase: Phase
    incarnation: Incarnation
    address: str = ""
    """`host:port` while it is up, and not to be drained."""
    phase_s: float
    """Seconds since the last change of phase."""
    restarts: int = 0
    failures: int = 0
    """In a row."""
    crash_looping: bool = False
    reason: str = ""
    """Why the last life ended, or what keeps Ray from placing this one."""
    figures: ProcessFigures | None = None
    """None when the worker neither is up nor drains, or did not answer in time."""


class FrontDoorReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one front-door replica says about itself with every poll."""

    front_door: FrontDoorId
    grpc: str
    """`host:port` of its gRPC server."""
    in_flight: int = 0
    queued: int = 0
    turned_away: int = 0
    """Requests that got no place, since its start."""
    workers: int = 0
    """Workers it has a session with."""
    busy: tuple[Incarnation, ...] = ()
    """The lives of workers that may have requests of this front door."""
    membership_version: int = 0
    pid: int = 0
    ttft_accuracy: Accuracy = Accuracy()


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
        """Whether every wanted worker is up, and every front door knows and has reached all of them."""
        return (
            bool(self.workers)
            and all(worker.phase is Phase.UP for worker in self.workers)
            and bool(self.front_doors)
            and all(
                door.membership_version >= self.membership_version
                and door.workers == len(self.workers)
                for door in self.front_doors
            )
        )
