"""What the engine is told and what it says: the whole interface between the engine thread and the rest of a worker.

`owner` is an opaque name for whoever submitted a request (a front door's session); the engine hands it back with every
event, so that the server can put all of a step's events for one owner into one frame.
"""

import msgspec

from tercet.ids import BlockId, Epoch, RequestId, WorkerId
from tercet.request import RequestSpec, TokenLogprobs
from tercet.wire import Failed, MoveWanted, Refused, Started, Tokens

# ---- commands --------------------------------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True):
    """Own and run a request; with `hand_off` stop after the first token and keep its blocks until `Release`."""

    spec: RequestSpec
    epoch: Epoch
    owner: str
    output: tuple[int, ...] = ()
    hand_off: bool = False


class Reserve(msgspec.Struct, frozen=True):
    """Find cached blocks and allocate the rest for a request whose KV will be pulled; answered by `Reserved`.

    A hand-off brings at least one more token; a `live` request may come as it is, so its last one is never thought cached.
    """

    spec: RequestSpec
    epoch: Epoch
    owner: str
    output: tuple[int, ...] = ()
    live: bool = False


class Arrived(msgspec.Struct, frozen=True):
    """The first `tokens` tokens' KV of a reserved request is here and verified."""

    request: RequestId
    epoch: Epoch
    tokens: int


class Extend(msgspec.Struct, frozen=True):
    """A reserved request has grown at its source: have blocks for `tokens` tokens; answered by `Extended`."""

    request: RequestId
    epoch: Epoch
    tokens: int


class Commit(msgspec.Struct, frozen=True):
    """The KV of the first `tokens` tokens is here: own the request and go on from `output`."""

    request: RequestId
    epoch: Epoch
    output: tuple[int, ...]
    tokens: int
    pulled_tokens: int = 0
    pulled_bytes: int = 0
    pull_s: float = 0.0
    pull_exposed_s: float = 0.0
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """Of the tokens by which `output` is longer than what `Reserve` gave."""
    pulled_codec: str = "none"


class Recompute(msgspec.Struct, frozen=True):
    """The pull failed: own the request and prefill here what has not arrived.

    `quarantine` names blocks of this request into which a transfer may still write; they are replaced by fresh ones and
    kept out of circulation until `Unquarantine`.
    """

    request: RequestId
    epoch: Epoch
    quarantine: tuple[BlockId, ...] = ()


class Decline(msgspec.Struct, frozen=True):
    """The pull failed, and the source has the request still: say `Refused` to the owner and forget it, as `Drop` does."""

    request: RequestId
    epoch: Epoch
    reason: str
    quarantine: tuple[BlockId, ...] = ()


class Drop(msgspec.Struct, frozen=True):
    """Forget the request if its epoch is at most `epoch`, whatever its state; idempotent."""

    request: RequestId
    epoch: Epoch
    quarantine: tuple[BlockId, ...] = ()


class Unquarantine(msgspec.Struct, frozen=True):
    """The transfer that could still write into these blocks has ended."""

    blocks: tuple[BlockId, ...]


class Expose(msgspec.Struct, frozen=True):
    """Publish the KV of a request as it grows, while it runs; answered by `Published`, or by `Absent` if it does not run."""

    request: RequestId
    epoch: Epoch
    exposure: int
    """Which one this is, of all of this worker: what the engine says because of it carries the number."""


class Freeze(msgspec.Struct, frozen=True):
    """Stop stepping an exposed request and publish all it has; answered by `Held`."""

    request: RequestId
    epoch: Epoch


class Thaw(msgspec.Struct, frozen=True):
    """Run a request on that nobody takes over; an `owner` who asks for it is told by `Failed` if it is not here."""

    request: RequestId
    epoch: Epoch
    owner: str = ""


class Release(msgspec.Struct, frozen=True):
    """The destination has committed or given up: the blocks of a held request may go (they stay as prefix cache)."""

    request: RequestId
    epoch: Epoch


class Relieve(msgspec.Struct, frozen=True):
    """There are too many tokens here: ask the owners of some requests, of at most `tokens` together, to move them."""

    tokens: int
    to: WorkerId


class DropOwner(msgspec.Struct, frozen=True):
    """A front door is gone: forget everything it owned that is not held or reserved on another's behalf."""

    owner: str


Command = (
    Run
    | Reserve
    | Arrived
    | Extend
    | Commit
    | Recompute
    | Decline
    | Drop
    | Unquarantine
    | Expose
    | Freeze
    | Thaw
    | Release
    | Relieve
    | DropOwner
)

# ---- events ----------------------------------------------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True):
    """A wire message for the request's owner."""

    owner: str
    message: Started | Tokens | Refused | Failed | MoveWanted


class Reserved(msgspec.Struct, frozen=True):
    """Answer to `Reserve`: `blocks` covers the prompt and given output; the first `held_blocks` need no pull."""

    request: RequestId
    epoch: Epoch
    blocks: tuple[BlockId, ...]
    held_blocks: int


class Extended(msgspec.Struct, frozen=True):
    """Answer to `Extend`: the blocks behind those that were reserved before; none where there is no room."""

    request: RequestId
    epoch: Epoch
    blocks: tuple[BlockId, ...]


class Published(msgspec.Struct, frozen=True):
    """More KV of a request that moves is final: its blocks number `first…`, covering `tokens` tokens in all."""

    request: RequestId
    epoch: Epoch
    first: int
    blocks: tuple[BlockId, ...]
    generations: tuple[int, ...]
    tokens: int
    exposure: int = 0
    """Of the `Expose` that asked for it; 0 of a hand-off."""


class Held(msgspec.Struct, frozen=True):
    """A request has stopped to be taken over: a hand-off after its first token, another one when it was frozen.

    The KV of its first `tokens` tokens is published, and its blocks wait for `Release` or `Thaw`.
    """

    request: RequestId
    epoch: Epoch
    owner: str
    output: tuple[int, ...]
    tokens: int
    cached_tokens: int
    computed_tokens: int
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """Of the last tokens of `output`, where the request asked for them; the destination repeats them with the tokens."""
    exposure: int = 0
    """As in `Published`."""


class Ended(msgspec.Struct, frozen=True):
    """The engine keeps nothing of this request any more (finished, dropped, refused or failed)."""

    request: RequestId
    epoch: Epoch


class Absent(msgspec.Struct, frozen=True):
    """Answer to `Expose`: no such request runs here. It may still be on its way to here."""

    request: RequestId
    epoch: Epoch
    exposure: int
    """As in `Published`."""


Event = Said | Reserved | Extended | Published | Held | Ended | Absent
