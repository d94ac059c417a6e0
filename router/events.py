"""What a request's flight is told and what it orders: the whole interface between `flight.py` and the rest of the front door.

A worker's own words (`Started`, `Tokens`, `HandedOff`, `Refused`, `Failed`) enter as the wire messages they are; which of
the two possible owners speaks follows from the message's epoch.
"""

import msgspec

from tercet.errors import TercetError, Unavailable
from tercet.ids import WorkerId
from tercet.request import FinishReason, TokenLogprobs
from tercet.wire import (
    Adopt,
    Cancel,
    Endpoint,
    Failed,
    HandedOff,
    Refused,
    Resume,
    Stalled,
    Started,
    Submit,
    Tokens,
    Usage,
)

# ---- events ----------------------------------------------------------------------------------------------------------


class Chosen(msgspec.Struct, frozen=True):
    """Answer to `ChooseWorker`: with `hand_off` the worker only prefills, else it does everything."""

    worker: Endpoint
    hand_off: bool


class Bound(msgspec.Struct, frozen=True):
    """Answer to `ChooseDestination`."""

    worker: Endpoint


class Relocated(msgspec.Struct, frozen=True):
    """This worker is to take over a request that runs; only while it can be moved."""

    worker: Endpoint


class Unseated(msgspec.Struct, frozen=True):
    """The worker in whose queue the request waits begins with nothing more."""


class TurnedAway(msgspec.Struct, frozen=True):
    """Answer to `ChooseWorker`, after whatever wait: there will be none."""

    error: Unavailable


class NoneUsable(msgspec.Struct, frozen=True):
    """Answer to `ChooseDestination`: no worker may be asked now. `reason` goes to the client if that does not change."""

    reason: str


class Waited(msgspec.Struct, frozen=True):
    """The delay of the last `Wait` is over."""


class Joined(msgspec.Struct, frozen=True):
    """A worker has just become usable, who may be the one that was waited for."""


class WorkerLost(msgspec.Struct, frozen=True):
    """The link to this life of a worker is gone, and with it all it had of the request."""

    worker: Endpoint
    reason: str


class ClientLeft(msgspec.Struct, frozen=True):
    """Nobody listens any more: the client left, a stop string was found, or the front door stops."""


class DeadlinePassed(msgspec.Struct, frozen=True):
    """The client's deadline is over."""


WorkerWord = Started | Tokens | HandedOff | Stalled | Refused | Failed
Event = (
    WorkerWord
    | Chosen
    | Bound
    | Relocated
    | Unseated
    | TurnedAway
    | NoneUsable
    | Waited
    | Joined
    | WorkerLost
    | ClientLeft
    | DeadlinePassed
)

# ---- commands --------------------------------------------------------------------------------------------------------


class ChooseWorker(msgspec.Struct, frozen=True):
    """Answer with `Chosen`, now or when one suits, or with `TurnedAway`; these workers have just failed."""

    exclude: frozenset[WorkerId] = frozenset()


class ChooseDestination(msgspec.Struct, frozen=True):
    """Execution has begun on `source`: answer with `Bound` or `NoneUsable`."""

    source: Endpoint
    exclude: frozenset[WorkerId] = frozenset()


class Send(msgspec.Struct, frozen=True):
    """Post this to the worker; if its link is gone, `WorkerLost` follows."""

    worker: Endpoint
    message: Submit | Adopt | Resume | Cancel


class Prefilled(msgspec.Struct, frozen=True):
    """The prompt's KV is complete: nothing of it is pending on `worker` any more."""

    worker: Endpoint


class Closed(msgspec.Struct, frozen=True):
    """The worker has nothing of this request any more, or has been told to forget it."""

    worker: Endpoint


class Moved(msgspec.Struct, frozen=True):
    """A move that `Relocated` began is over; `reason` says why the request stays at `source`, empty when it does not."""

    source: Endpoint
    reason: str = ""


class Busy(msgspec.Struct, frozen=True):
    """The worker begins with nothing new before `retry_after_s` have passed."""

    worker: Endpoint
    retry_after_s: float


class Deliver(msgspec.Struct, frozen=True):
    """New tokens for the client, in order, each exactly once."""

    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None


class Bill(msgspec.Struct, frozen=True):
    """What the request cost on the worker that owned it under the source's epoch, or under the destination's."""

    usage: Usage
    of_source: bool


class Wait(msgspec.Struct, frozen=True):
    """Answer with `Waited` after this long."""

    delay_s: float


class Finish(msgspec.Struct, frozen=True):
    """The generation is complete."""

    reason: FinishReason
    worker: Endpoint | None = None
    """Who computed the last token; None when the log was complete before anybody said so."""


class Fail(msgspec.Struct, frozen=True):
    """The generation cannot be completed; the client gets this."""

    error: TercetError


Command = (
    ChooseWorker
    | ChooseDestination
    | Send
    | Prefilled
    | Closed
    | Moved
    | Busy
    | Deliver
    | Bill
    | Wait
    | Finish
    | Fail
)
