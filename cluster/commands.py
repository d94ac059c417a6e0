"""What the cluster's state wants done. Whoever executes these does not decide anything."""

from dataclasses import dataclass

from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Membership


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Ask Ray for a process in this seat; answered by `Placed` and `WorkerUp`, or `StartFailed`, or `WorkerLost`."""

    worker: WorkerId
    role: Role
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Have the worker emptied; answered by `Drained`, or `WorkerLost`. It is not in the membership published last."""

    worker: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class StopWorker:
    """Make sure that the worker ends; answered by `Stopped`. With `graceful` it is asked before it is killed."""

    worker: WorkerId
    incarnation: Incarnation
    graceful: bool


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Make sure that nothing is left of a worker that was lost; not answered."""

    worker: WorkerId
    incarnation: Incarnation


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell every front door which workers there are."""

    membership: Membership


Command = StartWorker | DrainWorker | StopWorker | KillWorker | Publish
