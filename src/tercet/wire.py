"""Messages between our own processes: tagged msgspec structs, one union a direction, many to a frame.

Two kinds of link exist. A *session* joins a front door to a worker and lives as long as both; a *peer link* joins the
worker that pulls KV (destination) to the one that computed it (source). Both begin with `Hello` and `Welcome`/`Refuse`;
nothing else is decoded before the versions are known to be equal. Durations are relative: clocks are never compared.
"""

from enum import StrEnum

import msgspec

from tercet.ids import FIRST_EPOCH, BlockId, Epoch, Incarnation, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, TokenLogprobs
from tercet.role import Role

PROTOCOL_VERSION = 3
"""Raised with every change that an older process would misread."""
NAME_BYTES = 8
"""Of the name of one prompt prefix in `Submit.names`, `Adopt.names` and `Learned.names`; names follow each other."""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True, omit_defaults=True):
    """Base of all messages: encoded as an array whose first element is the class name."""


# ---- handshake -------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First message of whoever connects."""

    protocol: int
    cluster: str
    sender: str
    incarnation: Incarnation
    expects: Incarnation
    """The incarnation the sender believes it is talking to; a restarted worker refuses references to its former life."""
    compat: str = ""
    """KV compatibility key of a connecting worker (see `workers.compat`); empty from a front door."""
    agent: bytes = b""
    """The sender's NIXL agent metadata on a peer link; empty from a front door."""
    learns: bool = False
    """A front door that reads `Learned`."""


class Welcome(Message, frozen=True):
    """Answer to an acceptable `Hello`."""

    protocol: int
    worker: WorkerId
    incarnation: Incarnation
    kv: "KvRegion | None" = None
    """How to read the worker's KV memory; only on peer links."""
    staged: "KvRegion | None" = None
    """Its memory for packed blocks, where it packs any."""
    others: "list[KvRegion]" = []
    """The memory of its further ranks, where its KV heads are shared out evenly among several processes. `kv` is then
    rank 0's, and has the generation words for all."""


class Refuse(Message, frozen=True):
    """Answer to an unacceptable `Hello`; the link closes after it."""

    reason: str


class KvRegion(msgspec.Struct, frozen=True, array_like=True):
    """A worker's registered KV memory: block `i` lies at `base + i * block_bytes`, its generation word (uint64) at
    `generation_base + 8 * i`."""

    agent: bytes
    base: int
    block_bytes: int
    blocks: int
    generation_base: int
    device: int = -1
    """CUDA device the blocks lie on; -1 is host memory, where the generation words always lie."""


class Ping(Message, frozen=True):
    """Heartbeat; any frame proves life, this one is sent when there is nothing else to say."""


# ---- front door -> worker --------------------------------------------------------------------------------------------


class Endpoint(msgspec.Struct, frozen=True, array_like=True):
    """Where and who a worker is. `unix` is empty when the peer must use TCP."""

    worker: WorkerId
    incarnation: Incarnation
    role: Role
    host: str
    port: int
    host_id: str
    """Equal on processes that share a kernel; they use the unix socket."""
    unix: str = ""


class Submit(Message, frozen=True):
    """Own this request and run it: prefill what is not cached, then decode to the end.

    With `hand_off` the worker reports `Started`, holds prompt KV after the first token and waits to be pulled from.
    """

    spec: RequestSpec
    epoch: Epoch
    output: list[int] = []
    """Tokens generated so far by earlier owners."""
    hand_off: bool = False
    names: bytes = b""
    """Of the prompt's prefixes, for the other front doors; empty unless the worker reports several `front_doors`."""


class Adopt(Message, frozen=True):
    """Pull this request's KV from `source`, which has it under `source_epoch`, then own it under `epoch`.

    With `live` the source runs the request until the destination commits, and goes on with it if the destination does not:
    then the answer is `Refused`, never a computation of what could not be pulled.
    """

    spec: RequestSpec
    epoch: Epoch
    source: Endpoint
    source_epoch: Epoch
    output: list[int] = []
    names: bytes = b""
    """As in `Submit`."""
    live: bool = False


class Resume(Message, frozen=True):
    """Whoever was to take over this request will not: run it on. Answered by `Failed` where it is not here any more."""

    request: RequestId
    epoch: Epoch
    upto: Epoch
    """Of whoever was to take it over; one that pulls already under a later epoch is not meant."""


class Cancel(Message, frozen=True):
    """Forget the request if its epoch is at most `epoch`; idempotent, unknown requests are fine."""

    request: RequestId
    epoch: Epoch


FrontDoorMessage = Hello | Ping | Submit | Adopt | Resume | Cancel

# ---- worker -> front door --------------------------------------------------------------------------------------------


class Started(Message, frozen=True):
    """The prefill of a `hand_off` request begins to execute: bind a destination now, not earlier."""

    request: RequestId
    epoch: Epoch


class Usage(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """What a request cost on the worker that reports it."""

    cached_tokens: int = 0
    """Prompt tokens found in this worker's prefix cache."""
    computed_tokens: int = 0
    """Prompt tokens this worker computed."""
    pulled_tokens: int = 0
    pulled_bytes: int = 0
    pull_s: float = 0.0
    """Seconds spent in transfers, summed over pulls."""
    pull_exposed_s: float = 0.0
    """Seconds from the source's commit until the last block was here: what the hand-off added."""
    recomputed: bool = False
    """A pull failed and the rest of the prompt was computed here."""
    preemptions: int = 0
    pulled_codec: str = "none"
    """How what was pulled was packed, if any of it was."""


class Tokens(Message, frozen=True):
    """Output tokens from position `index` on; the last message of a request carries `finish` and `usage`.

    An owner's first message starts at the position where its ownership began or earlier, so that no front door ever sees
    a gap, whichever of two sockets is faster.
    """

    request: RequestId
    epoch: Epoch
    index: int
    tokens: list[int]
    logprobs: list[TokenLogprobs] | None = None
    finish: FinishReason | None = None
    usage: Usage | None = None


class HandedOff(Message, frozen=True):
    """From the source: the destination has committed; this worker no longer owns the request."""

    request: RequestId
    epoch: Epoch
    usage: Usage


class Stalled(Message, frozen=True):
    """From the source of a live move: the request is frozen here, and whether the destination has taken over is not known.

    Only the front door can know; it answers with `Resume` or `Cancel`.
    """

    request: RequestId
    epoch: Epoch
    reason: str


class Refused(Message, frozen=True):
    """The worker does not take this request now; nothing was kept. Another worker may."""

    request: RequestId
    epoch: Epoch
    reason: str
    retry_after_s: float = 0.0
    pending_tokens: int | None = None
    """Its load report's `pending_prefill_tokens` of this moment, which is news: who sent the request had thought better."""


class Failed(Message, frozen=True):
    """The worker gave up the request and keeps nothing of it. `retryable` is False when no worker could do better."""

    request: RequestId
    epoch: Epoch
    reason: str
    retryable: bool = True


class MoveWanted(Message, frozen=True):
    """This worker is too full and asks for the request, which it owns under `epoch`, to be moved; it runs on meanwhile."""

    request: RequestId
    epoch: Epoch
    to: WorkerId


class TierFigures(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """KV that a worker keeps in host memory for its device, and what came of it since the worker started."""

    blocks: int = 0
    """0 where there is no such memory; then all is 0."""
    blocks_used: int = 0
    saved_blocks: int = 0
    """Copied from the device before they were evicted there."""
    saved_bytes: int = 0
    fetched_blocks: int = 0
    """Copied back, because a request wanted them."""
    fetched_bytes: int = 0
    device_hit_tokens: int = 0
    """Not computed, because the device's own prefix cache had them."""
    host_hit_tokens: int = 0
    """Not computed, because they were copied back."""


class LoadReport(Message, frozen=True):
    """A worker's state, sent every report period to every front door."""

    role: Role
    waiting: int
    """Requests that have not started."""
    running: int
    """Requests in the running batch."""
    holding: int
    """Requests whose KV is kept for a destination that has not released it."""
    pulling: int
    """Requests whose KV is on its way here."""
    pending_prefill_tokens: int
    """Prompt tokens accepted but neither cached nor computed."""
    context_tokens: int
    """Sum of context lengths of the running batch."""
    blocks_total: int
    blocks_used: int
    """Referenced blocks; cached but unreferenced ones count as free."""
    prefill_coefficients: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """c0, c1, c2 of the latency model; all zero until fitted."""
    decode_coefficients: tuple[float, float, float] = (0.0, 0.0, 0.0)
    pull_bytes: int = 0
    """Bytes pulled since the worker started."""
    pull_s: float = 0.0
    pulls: int = 0
    pull_failures: int = 0
    quarantined_blocks: int = 0
    leases: int = 0
    block_bytes: int = 0
    """KV of one block: how much of `pull_bytes` a token is."""
    retained_blocks: int = 0
    """Cached blocks that requests have asked to keep, referenced or not."""
    front_doors: int = 0
    """Connected front doors that learn from each other; while there are several, orders carry names."""
    draining: bool = False
    """It is about to end: it wants no new requests, and those it has to be moved away."""
    head_tokens: int = 0
    """Length of the first waiting request, if it waits for KV blocks; 0 if it waits for its turn only, or there is none."""
    urgent: int = 0
    """Running requests with a priority above 0."""
    host: TierFigures = TierFigures()


class Learned(Message, frozen=True):
    """Names of prefixes that other front doors have sent to this worker since its last report, newest order first."""

    names: bytes


class Accuracy(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the last first tokens came earlier or later than predicted; zero where nothing was predicted."""

    predictions: int = 0
    """Requests it is made of."""
    error_ms_p50: float = 0.0
    error_ms_p90: float = 0.0


class LoadFigures(LoadReport, frozen=True, array_like=False, tag=False, omit_defaults=False):
    """The same under its fields' names, for status calls: `tercet status --json` is read by others too."""


WorkerMessage = (
    Welcome
    | Refuse
    | Ping
    | Started
    | Tokens
    | HandedOff
    | Stalled
    | Refused
    | Failed
    | MoveWanted
    | LoadReport
    | Learned
)

# ---- destination -> source -------------------------------------------------------------------------------------------


class Pull(Message, frozen=True):
    """Publish this request's KV to me; I already hold its first `held_blocks` blocks. Takes a lease on the source."""

    request: RequestId
    epoch: Epoch
    """The source's epoch."""
    held_blocks: int
    known_output: int = 0
    """Output tokens that I know, with their log-probabilities."""
    live: bool = False
    """The request goes on running until `Freeze`."""
    codec: str = "none"
    """How blocks may be packed; a source that does not do so offers them as they are."""
    as_epoch: Epoch = FIRST_EPOCH
    """The destination's epoch."""


class Freeze(Message, frozen=True):
    """I have nearly everything: stop this request at the next step boundary, publish the rest and commit."""

    request: RequestId
    epoch: Epoch


class Took(Message, frozen=True):
    """The blocks below number `blocks` are here: what was packed of them need not be kept. Said only of packed offers."""

    request: RequestId
    epoch: Epoch
    blocks: int


class Renew(Message, frozen=True):
    """The leases of these requests are still wanted: each lives on for another lease duration."""

    requests: list[tuple[RequestId, Epoch]]


class Release(Message, frozen=True):
    """The lease is over. `committed` says that the destination owns the request now; otherwise it gave up pulling."""

    request: RequestId
    epoch: Epoch
    committed: bool


DestinationMessage = Hello | Ping | Pull | Freeze | Took | Renew | Release

# ---- source -> destination -------------------------------------------------------------------------------------------


class Ready(Message, frozen=True):
    """These blocks of the request hold final KV: `blocks[i]` is its block number `first + i` on the source.

    A reader must see the same generation words after its read as are named here, else it discards what it read.
    """

    request: RequestId
    epoch: Epoch
    first: int
    blocks: list[BlockId]
    generations: list[int]
    tokens: int
    """Tokens covered by all blocks published so far; a last, partial block is published only with `Commit` following."""
    slots: list[BlockId] = []
    """Where the same blocks lie packed in staging memory, in the same order, and under which words; empty unless they do."""
    slot_generations: list[int] = []
    pack_s: float = 0.0
    """What packing them took."""


class Commit(Message, frozen=True):
    """Everything is published: the KV of the first `tokens` tokens of the log, whose output so far is `output`."""

    request: RequestId
    epoch: Epoch
    output: list[int]
    tokens: int
    logprobs: list[TokenLogprobs] | None = None
    """Of the last tokens of `output`, those beyond what the destination knew, where the request asked for them."""


class GoneReason(StrEnum):
    """Why a source has nothing (more) to give."""

    FINISHED = "finished"
    """The request ended with its first token; nothing is left to decode."""
    UNKNOWN = "unknown"
    """No such request or epoch here: cancelled, expired, or never seen. Recompute."""


class Gone(Message, frozen=True):
    """The source has no such request any more."""

    request: RequestId
    epoch: Epoch
    reason: GoneReason


SourceMessage = Welcome | Refuse | Ping | Ready | Commit | Gone

# ---- control plane -> front door (over Ray, rare) --------------------------------------------------------------------


class Membership(msgspec.Struct, frozen=True):
    """The workers that may be used. `version` only grows; a reader ignores what is not newer than what it has."""

    version: int
    workers: tuple[Endpoint, ...] = ()
