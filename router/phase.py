"""Where a request can be, and every legal way from one place to the next."""

from enum import StrEnum


class Phase(StrEnum):
    """Who has the request."""

    CHOOSING = "choosing"
    """Nobody."""
    ALONE = "alone"
    """One worker, to the end."""
    PREFILLING = "prefilling"
    """The source, in its queue."""
    BINDING = "binding"
    """The source, computing; a destination is wanted."""
    MOVING = "moving"
    """The source computes or holds, the destination pulls."""
    DECODING = "decoding"
    """The destination; the source may still hold blocks nobody needs."""
    ENDED = "ended"
    """Nobody, for good."""


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.CHOOSING: frozenset({Phase.ALONE, Phase.PREFILLING, Phase.ENDED}),
    Phase.ALONE: frozenset({Phase.CHOOSING, Phase.ENDED}),
    Phase.PREFILLING: frozenset({Phase.BINDING, Phase.CHOOSING, Phase.ENDED}),
    Phase.BINDING: frozenset({Phase.MOVING, Phase.CHOOSING, Phase.ENDED}),
    Phase.MOVING: frozenset({Phase.BINDING, Phase.DECODING, Phase.CHOOSING, Phase.ENDED}),
    Phase.DECODING: frozenset({Phase.CHOOSING, Phase.ENDED}),
    Phase.ENDED: frozenset(),
}
"""Anything else is a bug."""

NEEDS_SOURCE = frozenset({Phase.ALONE, Phase.PREFILLING, Phase.BINDING, Phase.MOVING})
MAY_HAVE_SOURCE = NEEDS_SOURCE | {Phase.DECODING}
HAS_DESTINATION = frozenset({Phase.MOVING, Phase.DECODING})
