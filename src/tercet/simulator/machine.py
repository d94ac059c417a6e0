"""A worker in a simulation: what front doors may say to it, and what it must answer. How it spends its time is the model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tercet.ids import FrontDoorId, RequestId
from tercet.router.events import WorkerWord
from tercet.simulator.traces import Arrival
from tercet.wire import Adopt, Cancel, Endpoint, LoadReport, Resume, Submit

Order = Submit | Adopt | Resume | Cancel
Say = Callable[[FrontDoorId, WorkerWord], None]
"""A machine's words; they travel as long as the network takes."""
Book = Mapping[RequestId, Arrival]
"""What the trace says of a request, for those who would otherwise have to look at its tokens."""


class Machine(Protocol):
    """One life of one worker."""

    endpoint: Endpoint

    @property
    def busy_s(self) -> float:
        """Time spent computing until now."""

    def kill(self) -> None:
        """The process is gone. What it said is on its way; nothing follows."""

    def take(self, owner: FrontDoorId, order: Order) -> None:
        """An order has arrived."""

    def report(self) -> LoadReport:
        """Its load now."""

    def hit(self, names: Sequence[int]) -> int:
        """How many leading blocks it has cached now."""

    def cached(self) -> frozenset[int]:
        """The names of all blocks it has cached now."""
