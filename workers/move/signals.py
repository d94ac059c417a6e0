"""What both sides of a move are told and what they order: from and to engine, peer, transfer and front door."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers import events
from tercet.workers.transfer.base import Pulled, PullFailed, PullJob, Settled
from tercet.workers.transfer.codec_choice import Codec


class Outcome(StrEnum):
    """How a move ended at the destination."""

    COMMITTED = "committed"
    """The KV is here; the request goes on here."""
    RECOMPUTED = "recomputed"
    """The request is ours, and what did not arrive is computed here."""
    DECLINED = "declined"
    """The request stays where it is."""
    DROPPED = "dropped"
    """Nobody wants the request here any more."""


# ---- to both ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""


# ---- to the destination's side ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Linked:
    """The link to the source stands."""


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The link to the source could not be opened, was refused, or is lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The front door does not want the request here."""


ArrivalEvent = (
    events.Reserved
    | events.Extended
    | events.Ended
    | Linked
    | LinkLost
    | wire.Ready
    | wire.Commit
    | wire.Gone
    | Pulled
    | PullFailed
    | Settled
    | Cancelled
    | Tick
)
ToEngine = (
    events.Arrived
    | events.Extend
    | events.Commit
    | events.Recompute
    | events.Decline
    | events.Drop
    | events.Unquarantine
)
ToSource = wire.Pull | wire.Freeze | wire.Took | wire.Release
ArrivalCommand = ToEngine | ToSource | PullJob

# ---- to the source's side --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spoken:
    """A message that came over the peer link named `reader`."""

    reader: str
    message: wire.Pull | wire.Freeze | wire.Renew | wire.Release


@dataclass(frozen=True, slots=True)
class ReaderLost:
    """That peer link is gone."""

    reader: str


@dataclass(frozen=True, slots=True)
class OwnerLost:
    """The front door is gone: nobody wants the request any more."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The front door wants the request to run on here."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """The engine keeps nothing of the request: it has finished, or was dropped or failed."""

    finished: bool


DepartureEvent = (
    events.Published | events.Held | Vanished | Spoken | ReaderLost | Recalled | OwnerLost | Tick
)


class ToReader(msgspec.Struct, frozen=True):
    """A message for the peer link named `reader`."""

    reader: str
    message: wire.Ready | wire.Commit | wire.Gone


class ToOwner(msgspec.Struct, frozen=True):
    """A message for the front door's session named `owner`."""

    owner: str
    message: wire.HandedOff | wire.Stalled | wire.Failed


OfEngine = events.Expose | events.Freeze | events.Thaw | events.Release | events.Drop
DepartureCommand = ToReader | ToOwner | OfEngine

# ---- to and from whoever packs for the source ------------------------------------------------------------------------


class Pack(msgspec.Struct, frozen=True):
    """Pack these blocks, published under these words, into staging memory; answered by `Packed` in any case."""

    request: RequestId
    epoch: Epoch
    number: int
    """Of this order."""
    blocks: tuple[BlockId, ...]
    generations: tuple[int, ...]
    codec: Codec


class Packed(msgspec.Struct, frozen=True):
    """An order was carried out. Without `generations` there was no room, or a block was reused while it was packed."""

    request: RequestId
    epoch: Epoch
    number: int
    slots: tuple[BlockId, ...] = ()
    """Kept until `Unstage`."""
    generations: tuple[int, ...] = ()
    seconds: float = 0.0

    def given_up(self) -> "list[SourceCommand]":
        """What is to be done when nobody is to read these slots."""
        return [Unstage(self.slots)] if self.slots else []


class Unstage(msgspec.Struct, frozen=True):
    """These slots may be used anew."""

    slots: tuple[BlockId, ...]


SourceCommand = DepartureCommand | Pack | Unstage
