"""The destination's side of one hand-off: reserve, pull what the source publishes, own the request. A pure state machine.

Events come in from the engine, the peer link, the transfer and the front door; commands for the same four go out.

    RESERVING ── Reserved ──► LINKING ── Linked ──► PULLING ──┬─ all here ──► commit ─────┐
        │  (Linked may come first)   │                        ├─ any failure ► recompute ─┼─► OVER
        └────────── Cancelled, Ended ┴────────────────────────┴─ Cancelled ──► drop ──────┘
                                                     └ a read is still in flight: SETTLING, then OVER

Two rules stand above all others. Tokens are admitted only after a pull that was checked; whatever goes wrong, the rest
is computed here. And blocks into which a read may still write are quarantined until that read has ended.
"""

from tercet.workers.hand_off.intake import Intake
from tercet.workers.hand_off.machine import HandOff
from tercet.workers.hand_off.signals import (
    Cancelled,
    Command,
    Event,
    Linked,
    LinkLost,
    Outcome,
    Phase,
    Tick,
    ToEngine,
    ToSource,
)

__all__ = [
    "Cancelled",
    "Command",
    "Event",
    "HandOff",
    "Intake",
    "LinkLost",
    "Linked",
    "Outcome",
    "Phase",
    "Tick",
    "ToEngine",
    "ToSource",
]
