"""Where a move stands on either side, and every legal way from one phase to the next."""

from enum import StrEnum


class ArrivalPhase(StrEnum):
    """At the destination."""

    RESERVING = "reserving"
    """The engine looks for blocks."""
    LINKING = "linking"
    """Blocks are reserved; the link to the source is not there yet."""
    PULLING = "pulling"
    """The source has been asked and holds a lease for us."""
    SETTLING = "settling"
    """Decided, but a read is in flight: its blocks are in quarantine."""
    OVER = "over"


class DeparturePhase(StrEnum):
    """At the source."""

    RUNNING = "running"
    """The engine steps it, and what it computes is published."""
    FREEZING = "freezing"
    """The engine has been told to stop it, and has not said yet that it did."""
    FROZEN = "frozen"
    """Nobody steps it; all there is is published, and waits under a lease."""
    OVER = "over"


A, D = ArrivalPhase, DeparturePhase

ARRIVAL_MOVES: dict[ArrivalPhase, frozenset[ArrivalPhase]] = {
    A.RESERVING: frozenset({A.LINKING, A.PULLING, A.OVER}),
    A.LINKING: frozenset({A.PULLING, A.OVER}),
    A.PULLING: frozenset({A.SETTLING, A.OVER}),
    A.SETTLING: frozenset({A.OVER}),
    A.OVER: frozenset(),
}
DEPARTURE_MOVES: dict[DeparturePhase, frozenset[DeparturePhase]] = {
    D.RUNNING: frozenset({D.FREEZING, D.FROZEN, D.OVER}),
    D.FREEZING: frozenset({D.FROZEN, D.OVER}),
    D.FROZEN: frozenset({D.OVER}),
    D.OVER: frozenset(),
}
"""Anything else is a bug. A hand-off stops by itself after its first token; only what runs on must be told to."""
