"""The live moves of one request, as its record tells of them."""

from dataclasses import dataclass, field

import msgspec

from tercet.ids import WorkerId

NOTES_MAX = 32
"""A request that moves more often keeps the last ones."""


class MoveNote(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to give a running request to another worker. Times are milliseconds on the front door's clock."""

    source: WorkerId
    destination: WorkerId
    at_ms: float
    """From the call until it was ordered."""
    took_ms: float | None = None
    """From the order until the front door knew how it ended; None while it is under way."""
    stall_ms: float | None = None
    """From the last token of the source to the first one of the destination."""
    reason: str = ""
    """Why the request stayed where it was; empty when it moved."""


@dataclass(slots=True)
class Moves:
    """Times are seconds of the front door's clock; `started_s` is that of the call."""

    started_s: float
    notes: list[MoveNote] = field(default_factory=list)
    moved: int = 0
    """Those that succeeded."""
    _began_s: float = 0.0
    _stalling: bool = False

    def begin(self, source: WorkerId, destination: WorkerId, now_s: float) -> None:
        self._began_s, self._stalling = now_s, False
        at_ms = (now_s - self.started_s) * 1e3
        self.notes.append(MoveNote(source=source, destination=destination, at_ms=at_ms))
        del self.notes[:-NOTES_MAX]

    def end(self, reason: str, now_s: float) -> None:
        took_ms = (now_s - self._began_s) * 1e3
        self._amend(took_ms=took_ms, reason=reason)
        self._stalling = not reason
        self.moved += self._stalling

    def arrived(self, pause_s: float) -> None:
        """Tokens came, so long after the ones before: the first ones after a move tell what it cost."""
        if self._stalling:
            self._stalling = False
            self._amend(stall_ms=pause_s * 1e3)

    def _amend(self, **facts: float | str) -> None:
        self.notes[-1] = msgspec.structs.replace(self.notes[-1], **facts)
