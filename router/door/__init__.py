"""The queue at the door: who waits, for which worker, in which order, and who is sent away."""

from tercet.router.door.door import Door
from tercet.router.door.fairness import FairShare
from tercet.router.door.lines import Lines
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.door.verdict import DoorRules, Sent, TurnedAway, Verdict

__all__ = [
    "NEVER_S",
    "Door",
    "DoorRules",
    "FairShare",
    "Lines",
    "Sent",
    "Ticket",
    "TurnedAway",
    "Verdict",
]
