"""What the supervisor needs of whatever runs worker processes: a few verbs, and one exception for everything lost."""

from typing import NamedTuple, Protocol

from tercet.cluster.events import Desired
from tercet.cluster.placement import Room
from tercet.cluster.status import ProcessFigures
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint


class WorkerProcess(Protocol):
    """One life of a worker. Every call raises PeerLost when the process is gone, PeerRefused when it answered no."""

    async def placed(self) -> None:
        """Return once the process runs; unbounded, because nodes may have to be added first."""

    async def start(self) -> Endpoint:
        """Load the model and listen; idempotent."""

    async def endpoint(self) -> Endpoint | None:
        """Where it listens; None while it is starting."""

    async def wait(self) -> None:
        """Return when the worker ended by itself; raise when it was lost."""

    async def health(self) -> bool:
        """Return while the worker makes progress, and whether it was told to drain; raise or never return otherwise."""

    async def figures(self) -> ProcessFigures: ...

    async def drain(self) -> None:
        """Want no more work, and to be rid of what it has; its figures tell how far it is."""

    async def relieve(self, to: WorkerId, tokens: int) -> None:
        """Give requests of at most so many tokens to that worker, if their front doors agree."""

    async def stop(self) -> None:
        """End in good order."""

    def kill(self) -> None:
        """Leave nothing of it, and free its place; never fails, never waits for it."""


class Lodger(NamedTuple):
    """A worker process that was found alive, and where it sits."""

    worker: WorkerId
    incarnation: Incarnation
    process: WorkerProcess


class Fleet(Protocol):
    """Whatever starts worker processes and remembers them when we do not."""

    def start(self, worker: WorkerId, role: Role, incarnation: Incarnation) -> WorkerProcess:
        """Ask for a place and a process in it; returns at once."""

    async def found(self) -> list[Lodger]:
        """Every worker process of this cluster that lives, whoever started it. Places of the others are freed."""

    async def wish(self) -> Desired | None:
        """What was remembered last, by whichever controller of this cluster."""

    async def remember(self, wish: Desired | None) -> None:
        """Keep this for controllers to come; None when there will be none."""

    async def room(self) -> Room:
        """The living nodes, and what is free on them."""
