"""A simulated process: a loop of its own, and connections that break when it dies."""

from typing import TYPE_CHECKING

from faults.loop import ProcessLoop

if TYPE_CHECKING:
    from faults.transport import End, Network


class Process:
    """Front doors and workers are processes."""

    def __init__(self, name: str, network: "Network") -> None:
        self.name = name
        self.network = network
        self.loop = ProcessLoop(network.timeline, self)
        self.ends: list[End] = []
        """Its sides of connections that stand."""
        self.stops = 0

    def __repr__(self) -> str:
        return self.name

    @property
    def alive(self) -> bool:
        return not self.loop.over

    @property
    def stopped(self) -> bool:
        return self.loop.stopped
