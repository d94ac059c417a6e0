"""What the engine is told and what it says: the whole interface between the engine thread and the rest of a worker.

`owner` is an opaque name for whoever submitted a request (a front door's session); the engine hands it back with every
event, so that the server can put all of a step's events for one owner into one frame.
"""

from dataclasses import dataclass

from tercet.ids import BlockId, Epoch, RequestId
from tercet.request import RequestSpec, TokenLogprobs
from tercet.wire import Failed, Refused, Started, Tokens

# ---- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """Own and run a request; with `hand_off` stop after the first token and keep its blocks until `Release`."""

    spec: RequestSpec
    epoch: Epoch
    owner: str
    output: tuple[int, ...] = ()
    hand_off: bool = False


@dataclass(frozen=True, slots=True)
class Reserve:
    """Find cached blocks and allocate the rest for a request whose KV will be pulled; answered by `Reserved`."""

    spec: RequestSpec
    epoch: Epoch
    owner: str
    output: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrived:
    """The first `tokens` tokens' KV of a reserved request is here and verified."""

    request: RequestId
    epoch: Epoch
    tokens: int


@dataclass(frozen=True, slots=True)
class Commit:
    """All KV arrived: own the request and decode on from `output`, whose last token has no KV yet."""

    request: RequestId
    epoch: Epoch
    output: tuple[int, ...]
    pulled_tokens: int = 0
    pulled_bytes: int = 0
    pull_s: float = 0.0
    pull_exposed_s: float = 0.0
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """Of the tokens by which `output` is longer than what `Reserve` gave, as the source's `Held` had them."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """The pull failed: own the request and prefill here what has not arrived.

    `quarantine` names blocks of this request into which a transfer may still write; they are replaced by fresh ones and
    kept out of circulation until `Unquarantine`.
    """

    request: RequestId
    epoch: Epoch
    quarantine: tuple[BlockId, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """Forget the request if its epoch is at most `epoch`, whatever its state; idempotent."""

    request: RequestId
    epoch: Epoch
    quarantine: tuple[BlockId, ...] = ()


@dataclass(frozen=True, slots=True)
class Unquarantine:
    """The transfer that could still write into these blocks has ended."""

    blocks: tuple[BlockId, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """The destination has committed or given up: the blocks of a held request may go (they stay as prefix cache)."""

    request: RequestId
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class DropOwner:
    """A front door is gone: forget everything it owned that is not held or reserved on another's behalf."""

    owner: str


Command = Run | Reserve | Arrived | Commit | Recompute | Drop | Unquarantine | Release | DropOwner

# ---- events ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Said:
    """A wire message for the request's owner."""

    owner: str
    message: Started | Tokens | Refused | Failed


@dataclass(frozen=True, slots=True)
class Reserved:
    """Answer to `Reserve`: `blocks` covers the prompt and given output; the first `held_blocks` need no pull."""

    request: RequestId
    epoch: Epoch
    blocks: tuple[BlockId, ...]
    held_blocks: int


@dataclass(frozen=True, slots=True)
class Published:
    """More KV of a hand-off request is final: its blocks number `first…`, covering `tokens` tokens in all."""

    request: RequestId
    epoch: Epoch
    first: int
    blocks: tuple[BlockId, ...]
    generations: tuple[int, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class Held:
    """A hand-off request has its first token; everything is published and the blocks wait for `Release`."""

    request: RequestId
    epoch: Epoch
    output: tuple[int, ...]
    cached_tokens: int
    computed_tokens: int
    logprobs: tuple[TokenLogprobs, ...] | None = None
    """Of the tokens drawn here, where the request asked for them; the destination repeats them with the tokens."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The engine keeps nothing of this request any more (finished, dropped, refused or failed)."""

    request: RequestId
    epoch: Epoch


Event = Said | Reserved | Published | Held | Ended
