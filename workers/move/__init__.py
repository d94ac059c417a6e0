"""A request changes its worker: one protocol for hand-offs after the prefill and for live moves. Two pure state machines.

`Departure` is the source's side, `Arrival` the destination's. The source owns the request until the destination commits;
the destination pulls, and nobody ever writes into another's memory.

    source      RUNNING ── frozen (a hand-off: by itself after its first token) ──► FROZEN ── committed ──► OVER
                  publishes full blocks                                publishes the rest │
                     ▲                                                                    │ not taken over, says the front door
                     └────────────────────────────── runs on ◄────────────────────────────┘

    destination RESERVING ── Reserved ──► LINKING ── Linked ──► PULLING ──┬─ all here ──► commit ──────────────┐
                  │  (Linked may come first)   │                          ├─ any failure ► recompute / decline ─┼─► OVER
                  └────── Cancelled, Ended ────┴──────────────────────────┴─ Cancelled ──► drop ───────────────┘
                                                                └ a read is still in flight: SETTLING, then OVER

Three rules stand above all others. Tokens are admitted only after a pull that was checked; whatever goes wrong, the rest is
computed: here after a hand-off, by the source, which has never ceased to own it, in a live move. Blocks into which a read may
still write are quarantined until that read has ended. And a source that has frozen a request and does not hear how it ended
never decides by itself: it asks the front door, whose log of tokens is the truth.

Where the destination asks for it blocks travel packed: `PackedOffers` stands between a departure and its reader, and holds back
each offer, and what was to be said after it, until its blocks are packed. Whatever comes of that, the same blocks are offered
as they are as well, so a packed pull that fails is a plain one that comes later.
"""

from tercet.workers.move.arrival import Arrival
from tercet.workers.move.departure import Departure
from tercet.workers.move.intake import Intake
from tercet.workers.move.packed_offers import PackedOffers, PackingTerms
from tercet.workers.move.phases import ArrivalPhase, DeparturePhase
from tercet.workers.move.signals import (
    ArrivalCommand,
    ArrivalEvent,
    Cancelled,
    DepartureCommand,
    DepartureEvent,
    Linked,
    LinkLost,
    Outcome,
    OwnerLost,
    Pack,
    Packed,
    ReaderLost,
    Recalled,
    SourceCommand,
    Spoken,
    Tick,
    ToEngine,
    ToOwner,
    ToReader,
    ToSource,
    Unstage,
    Vanished,
)

__all__ = [
    "Arrival",
    "ArrivalCommand",
    "ArrivalEvent",
    "ArrivalPhase",
    "Cancelled",
    "Departure",
    "DepartureCommand",
    "DepartureEvent",
    "DeparturePhase",
    "Intake",
    "LinkLost",
    "Linked",
    "Outcome",
    "OwnerLost",
    "Pack",
    "Packed",
    "PackedOffers",
    "PackingTerms",
    "ReaderLost",
    "Recalled",
    "SourceCommand",
    "Spoken",
    "Tick",
    "ToEngine",
    "ToOwner",
    "ToReader",
    "ToSource",
    "Unstage",
    "Vanished",
]
