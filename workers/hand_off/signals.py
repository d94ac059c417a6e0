"""What a hand-off is told and what it orders: from and to the engine, the source, the transfer and the front door."""

from dataclasses import dataclass
from enum import StrEnum

from tercet import wire
from tercet.workers import events
from tercet.workers.transfer.base import Pulled, PullFailed, PullJob, Settled


class Phase(StrEnum):
    RESERVING = "reserving"
    """The engine looks for blocks."""
    LINKING = "linking"
    """Blocks are reserved; the link to the source is not there yet."""
    PULLING = "pulling"
    """The source has been asked and holds a lease for us."""
    SETTLING = "settling"
    """Decided, but a read is in flight: its blocks are in quarantine."""
    OVER = "over"


class Outcome(StrEnum):
    COMMITTED = "committed"
    """The KV is here; the request decodes on."""
    RECOMPUTED = "recomputed"
    """The request is ours, and what did not arrive is computed here."""
    DROPPED = "dropped"
    """Nobody wants the request here any more."""


@dataclass(frozen=True, slots=True)
class Linked:
    """The link to the source stands."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link to the source could not be opened, was refused, or is lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The front door does not want the request here."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""


Event = (
    events.Reserved
    | events.Ended
    | Linked
    | LinkLost
    | wire.Ready
    | wire.Commit
    | wire.Gone
    | Pulled
    | PullFailed
    | Settled
    | Cancelled
    | Tick
)
ToEngine = events.Arrived | events.Commit | events.Recompute | events.Drop | events.Unquarantine
ToSource = wire.Pull | wire.Release
Command = ToEngine | ToSource | PullJob
