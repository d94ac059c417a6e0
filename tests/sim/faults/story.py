"""What happened, one line an event: when, who, what."""

from typing import Protocol

from tercet.simulator.timeline import Timeline
from tercet.wire import LoadReport, Message

DULL = LoadReport
"""Not worth a line."""
LINES_MAX = 20_000


class Named(Protocol):
    name: str

    @property
    def alive(self) -> bool: ...


class Story:
    """Nothing is written down unless it is wanted: most schedules end well, and a bad one can be played again."""

    def __init__(self, timeline: Timeline, *, wanted: bool) -> None:
        self._timeline, self.wanted = timeline, wanted
        self.lines: list[str] = []

    def tell(self, who: Named | str, what: str) -> None:
        if self.wanted and len(self.lines) < LINES_MAX and getattr(who, "alive", True):
            self.lines.append(f"{self._timeline.now_s():9.4f} s  {who!s:<14}  {what}")

    def heard(self, who: Named, whom: Named, frame: list[Message]) -> None:
        if self.wanted:
            for message in frame:
                if not isinstance(message, DULL):
                    self.tell(who, f"hears from {whom}: {shown(message)}")


def shown(thing: object, chars: int = 220) -> str:
    """As much of it as fits a line."""
    text = repr(thing)
    return text if len(text) <= chars else text[: chars - 1] + "…"
