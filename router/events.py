"""What a request's flight is told and what it orders: the whole interface between `flight.py` and the rest of the front door.

A worker's own words (`Started`, `Tokens`, `HandedOff`, `Refused`, `Failed`) enter as the wire messages they are; which of
the two possible owners speaks follows from the message's epoch.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Chosen:
    """Answer to `ChooseWorker`: with `hand_off` the worker only prefills, else it does everything."""

    worker: Endpoint
    hand_off: bool


@dataclass(frozen=True, slots=True)
class Bound:
    """Answer to `ChooseDestination`."""

    worker: Endpoint


@dataclass(frozen=True, slots=True)
class Relocated:
    """This worker is to take over a request that runs; only while it can be moved."""

    worker: Endpoint


@dataclass(frozen=True, slots=True)
class Unseated:
    """The worker in whose queue the request waits begins with nothing more."""


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Answer to `ChooseWorker`, after whatever wait: there will be none."""

    error: Unavailable


@dataclass(frozen=True, slots=True)
class NoneUsable:
    """Answer to `ChooseDestination`: no worker may be asked now. `reason` goes to the client if that does not change."""

    reason: str


@dataclass(frozen=True, slots=True)
class Waited:
    """The delay of the last `Wait` is over."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker has just become usable, who may be the one that was waited for."""


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The link to this life of a worker is gone, and with it all it had of the request."""

    worker: Endpoint
    reason: str


@dataclass(frozen=True, slots=True)
class ClientLeft:
    """Nobody listens any more: the client left, a stop string was found, or the front door stops."""


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
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


@dataclass(frozen=True, slots=True)
class ChooseWorker:
    """Answer with `Chosen`, now or when one suits, or with `TurnedAway`; these workers have just failed."""

    exclude: frozenset[WorkerId] = frozenset()


@dataclass(frozen=True, slots=True)
class ChooseDestination:
    """Execution has begun on `source`: answer with `Bound` or `NoneUsable`."""

    source: Endpoint
    exclude: frozenset[WorkerId] = frozenset()


@dataclass(frozen=True, slots=True)
class Send:
    """Post this to the worker; if its link is gone, `WorkerLost` follows."""

    worker: Endpoint
    message: Submit | Adopt | Resume | Cancel


@dataclass(frozen=True, slots=True)
class Prefilled:
    """The prompt's KV is complete: nothing of it is pending on `worker` any more."""

    worker: Endpoint


@dataclass(frozen=True, slots=True)
class Closed:
    """The worker has nothing of this request any more, or has been told to forget it."""

    worker: Endpoint


@dataclass(frozen=True, slots=True)
class Moved:
    """A move that `Relocated` began is over; `reason` says why the request stays at `source`, empty when it does not."""

    source: Endpoint
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Busy:
    """The worker begins with nothing new before `retry_after_s` have passed."""

    worker: Endpoint
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class Deliver:
    """New tokens for the client, in order, each exactly once."""

    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None


@dataclass(frozen=True, slots=True)
class Bill:
    """What the request cost on the worker that owned it under the source's epoch, or under the destination's."""

    usage: Usage
    of_source: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Answer with `Waited` after this long."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The generation is complete."""

    reason: FinishReason
    worker: Endpoint | None = None
    """Who computed the last token; None when the log was complete before anybody said so."""


@dataclass(frozen=True, slots=True)
class Fail:
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
