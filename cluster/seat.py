"""One seat in a pool and the life of whoever sits in it: which moves are legal, and when a failed worker is tried again.

PENDING ──► STARTING ──► UP ──► DRAINING    PENDING   Ray is looking for a place
   │           │         │         │        STARTING  the process runs and loads its model
   ├───────────┼─────────┼─────────┤        UP        published to the front doors
   ▼           ▼         ▼         ▼        DRAINING  not published; the front doors move away what it has
BACKOFF (lost, failed)             │        BACKOFF   failed; waits until `due_s`, then PENDING again
STOPPING (not wanted, drained) ◄───┘        STOPPING  told to stop; the seat is empty afterwards
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from tercet.config import ControlConfig
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint

ORDER = {role: place for place, role in enumerate(Role)}
NAMES_MAX = 1024
"""Of seats that need not be taken apart anew: after every event each of them is."""
CRASH_LOOP_FAILURES = 3
"""From this many failures in a row on, a worker is called crash-looping."""


class Phase(StrEnum):
    """Where a seat stands; see the picture above."""

    PENDING = "pending"
    STARTING = "starting"
    UP = "up"
    DRAINING = "draining"
    BACKOFF = "backoff"
    STOPPING = "stopping"


LEGAL = frozenset(
    {
        (Phase.PENDING, Phase.STARTING),
        (Phase.PENDING, Phase.BACKOFF),
        (Phase.PENDING, Phase.STOPPING),
        (Phase.STARTING, Phase.UP),
        (Phase.STARTING, Phase.BACKOFF),
        (Phase.STARTING, Phase.STOPPING),
        (Phase.UP, Phase.BACKOFF),
        (Phase.UP, Phase.DRAINING),
        (Phase.DRAINING, Phase.BACKOFF),
        (Phase.DRAINING, Phase.STOPPING),
        (Phase.UP, Phase.STOPPING),
        (Phase.BACKOFF, Phase.PENDING),
    }
)


def seat_name(role: Role, index: int) -> WorkerId:
    """The id of a pool's seat: `decode-1`."""
    return WorkerId(f"{role}-{index}")


@lru_cache(NAMES_MAX)
def seat_role(worker: WorkerId) -> Role:
    """The pool a seat belongs to; ValueError when it is not a seat's name."""
    return Role(worker.rpartition("-")[0])


@lru_cache(NAMES_MAX)
def seat_index(worker: WorkerId) -> int:
    """The place of a seat in its pool; ValueError when it is not a seat's name."""
    return int(worker.rpartition("-")[2])


@dataclass(slots=True)
class Seat:
    """What is known about one seat. `since_s` is the time of its last move."""

    worker: WorkerId
    incarnation: Incarnation
    since_s: float
    phase: Phase = Phase.PENDING
    endpoint: Endpoint | None = None
    failures: int = 0
    """Failures in a row; forgotten after the worker was up for the longest backoff."""
    restarts: int = 0
    due_s: float = 0.0
    """When the next attempt is made; meaningful in BACKOFF only."""
    reason: str = ""
    """Why the last life ended."""

    @property
    def role(self) -> Role:
        return seat_role(self.worker)

    @property
    def crash_looping(self) -> bool:
        return self.failures >= CRASH_LOOP_FAILURES

    def move(self, phase: Phase, now_s: float) -> None:
        """Change phase; an illegal move is a bug in the state machine."""
        assert (self.phase, phase) in LEGAL, f"{self.worker}: {self.phase} -> {phase} is not legal"
        self.phase, self.since_s = phase, now_s
        if phase is not Phase.UP:
            self.endpoint = None

    def fail(self, reason: str, control: ControlConfig, now_s: float) -> None:
        """The worker is gone: try again at once the first time, then after doubling delays."""
        stable = self.phase is Phase.UP and now_s - self.since_s >= control.restart_backoff_s_max
        self.failures = 1 if stable else self.failures + 1
        self.move(Phase.BACKOFF, now_s)
        self.reason = reason
        self.due_s = now_s + backoff_s(self.failures, control)

    def retry(self, incarnation: Incarnation, now_s: float) -> None:
        """Begin another life."""
        self.move(Phase.PENDING, now_s)
        self.incarnation = incarnation
        self.restarts += 1


def seat_order(seat: Seat) -> tuple[int, int]:
    """Sorts seats as people read them: prefill first, then by their place in the pool."""
    return ORDER[seat.role], seat_index(seat.worker)


def backoff_s(failures: int, control: ControlConfig) -> float:
    """Seconds to wait after the given number of failures in a row: 0, b, 2b, 4b … up to the maximum."""
    if failures <= 1:
        return 0.0
    doublings = min(failures - 2, 32)  # a float would overflow after a thousand failures
    return min(control.restart_backoff_s * 2.0**doublings, control.restart_backoff_s_max)
