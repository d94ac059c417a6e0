"""A state machine that is checked after every event."""

from collections.abc import Iterator
from itertools import count

import pytest

from tercet.cluster.commands import Command
from tercet.cluster.events import Event
from tercet.cluster.state import ClusterState
from tercet.config import ControlConfig
from tercet.ids import Incarnation


class CheckedState(ClusterState):
    """Runs `validate()` after every event; incarnations are `life-0`, `life-1`, …"""

    def __init__(self) -> None:
        lives = count()
        control = ControlConfig(restart_backoff_s=0.5, restart_backoff_s_max=4.0)
        super().__init__(control, 100, lambda: Incarnation(f"life-{next(lives)}"))

    def handle(self, event: Event, now_s: float) -> list[Command]:
        commands = super().handle(event, now_s)
        self.validate()
        return commands


@pytest.fixture
def state() -> Iterator[CheckedState]:
    state = CheckedState()
    yield state
    state.validate()
