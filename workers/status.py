"""What a worker says about itself when asked."""

import msgspec

from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import LoadFigures


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker at one moment, for people and for tests. When nothing is asked of it every count of things kept is zero."""

    worker: WorkerId
    role: Role
    incarnation: Incarnation
    load: LoadFigures
    sessions: int
    """Front doors connected."""
    readers: int
    """Workers connected to pull from us."""
    sources: int
    """Workers we are connected to, to pull from them."""
    departures: int
    """Requests to be handed off from here, running ones included."""
    arrivals: int
    """Hand-offs on their way here, those with a read in quarantine included."""
    unsettled_pulls: int
    staged_blocks: int
    """Packed: kept for readers, or read by us and not unpacked yet."""
    committed: int
    """Hand-offs since the start that ended with their KV here; the others follow."""
    recomputed: int
    dropped: int
    names_dropped: int
    """Names of prefixes since the start that were too many to be passed on to other front doors."""
