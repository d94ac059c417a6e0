"""What became of an operator's wish to move a call, as whoever wishes it is told. Knows neither HTTP nor gRPC."""

import msgspec

from tercet.ids import FrontDoorId, RequestId, WorkerId


class MoveOrder(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request of the call."""

    request: RequestId
    to: WorkerId | None = None
    """Who takes it over, if all goes well: its record tells."""
    reason: str = ""
    """Why it stays where it is; empty when it moves."""


class Relocation(msgspec.Struct, frozen=True, kw_only=True):
    """One front door's answer."""

    front_door: FrontDoorId
    moves: tuple[MoveOrder, ...] = ()
    """By choice; empty where the call is not known."""

    @property
    def is_known(self) -> bool:
        return bool(self.moves)

    @property
    def has_begun(self) -> bool:
        return any(order.to is not None for order in self.moves)


class MoveBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for over HTTP."""

    to: str = ""
    """The worker's name; empty leaves the choice to the routing policy."""
