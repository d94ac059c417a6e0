"""Where a request can be, and every legal way from one place to the next."""

from enum import StrEnum


class Phase(StrEnum):
    """Who has the request."""

    CHOOSING = "choosing"
    """Nobody."""
    ALONE = "alone"
    """One worker, to the end, unless it is moved."""
    PREFILLING = "prefilling"
    """The source, in its queue."""
    BINDING = "binding"
    """The source, computing; a destination is wanted."""
    MOVING = "moving"
    """The source computes or holds, the destination pulls."""
    DECODING = "decoding"
    """The destination; the source may still hold blocks nobody needs."""
    LEAVING = "leaving"
    """The source, which goes on until the destination, which pulls, has taken over."""
    ENDED = "ended"
    """Nobody, for good."""


P = Phase

MOVES: dict[Phase, frozenset[Phase]] = {
    P.CHOOSING: frozenset({P.ALONE, P.PREFILLING, P.ENDED}),
    P.ALONE: frozenset({P.LEAVING, P.CHOOSING, P.ENDED}),
    P.PREFILLING: frozenset({P.BINDING, P.CHOOSING, P.ENDED}),
    P.BINDING: frozenset({P.MOVING, P.CHOOSING, P.ENDED}),
    P.MOVING: frozenset({P.BINDING, P.DECODING, P.CHOOSING, P.ENDED}),
    P.DECODING: frozenset({P.LEAVING, P.CHOOSING, P.ENDED}),
    P.LEAVING: frozenset({P.ALONE, P.DECODING, P.CHOOSING, P.ENDED}),
    P.ENDED: frozenset(),
}
"""Anything else is a bug."""

NEEDS_SOURCE = frozenset({P.ALONE, P.PREFILLING, P.BINDING, P.MOVING, P.LEAVING})
MAY_HAVE_SOURCE = NEEDS_SOURCE | {P.DECODING}
HAS_DESTINATION = frozenset({P.MOVING, P.DECODING, P.LEAVING})
PULLED = frozenset({P.MOVING, P.LEAVING})
"""A source has it, and a destination pulls."""
MOVABLE = frozenset({P.ALONE, P.DECODING})
"""One worker has it and is not about to give it away."""
