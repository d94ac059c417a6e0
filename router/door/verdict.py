"""What the door decides about somebody, and the rules it goes by."""

from dataclasses import dataclass

import msgspec

from tercet.errors import Unavailable
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.routes import Route


@dataclass(frozen=True, slots=True)
class DoorRules:
    """How long and how many."""

    places: int
    """Requests that workers may have of this door at once."""
    queue_max: int
    ahead_s: float
    """A worker is sent more when what it still has to compute takes no longer than this."""
    itl_s_max: float = NEVER_S
    """Nobody is let in who is predicted to make the time between tokens longer than this."""


class Sent(msgspec.Struct, frozen=True):
    """To be sent to the route's worker; it has been charged."""

    ticket: Ticket
    route: Route


class TurnedAway(msgspec.Struct, frozen=True):
    """Nothing is kept of it here."""

    ticket: Ticket
    error: Unavailable


Verdict = Sent | TurnedAway
