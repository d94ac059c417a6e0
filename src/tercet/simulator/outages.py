"""Simulated workers that die or hang, and when the others notice."""

from collections.abc import Callable, Sequence

from tercet.simulator.engine_machine import EngineMachine
from tercet.simulator.entrance import Entrance
from tercet.simulator.fabric import Fabric
from tercet.simulator.timeline import Timeline

Born = Callable[[], EngineMachine]
"""Puts another life in the place of one that is over, where front doors will find it."""


class Outages:
    """A worker that was silent for `dead_after_s` is lost to front doors and to its peers."""

    def __init__(
        self, timeline: Timeline, doors: Sequence[Entrance], fabric: Fabric, dead_after_s: float
    ) -> None:
        self._timeline, self._doors, self._fabric = timeline, doors, fabric
        self._dead_after_s = dead_after_s

    def kill(self, machine: EngineMachine) -> None:
        """For good."""
        machine.kill()
        self._timeline.call_later(self._dead_after_s, self._lost, machine)

    def restart(self, machine: EngineMachine, down_s: float, born: Born) -> None:
        """Kill it; another life follows. If nobody has noticed by then, they do when the new one does not know them."""
        machine.kill()
        noticed_s = min(self._dead_after_s, down_s)
        self._timeline.call_later(noticed_s, self._lost, machine)
        self._timeline.call_later(down_s, self._joined, born)

    def hang(self, machine: EngineMachine, for_s: float) -> None:
        """It stops and goes on, as a process does that was stopped; for longer than `dead_after_s`, it has been given up."""
        machine.freeze()
        forsaken = for_s > self._dead_after_s
        if forsaken:
            self._timeline.call_later(self._dead_after_s, self._give_up, machine)
        self._timeline.call_later(for_s, self._wake, machine, forsaken)

    def _lost(self, machine: EngineMachine) -> None:
        for door in self._doors:
            door.lost(machine.endpoint.worker)

    def _joined(self, born: Born) -> None:
        endpoint = born().endpoint
        for door in self._doors:
            door.joined(endpoint)

    def _give_up(self, machine: EngineMachine) -> None:
        if machine.alive:
            self._fabric.unlink(machine)
            self._lost(machine)

    def _wake(self, machine: EngineMachine, forsaken: bool) -> None:
        if machine.alive:
            machine.thaw(forsaken=forsaken)
            for door in self._doors if forsaken else ():
                door.joined(machine.endpoint)
