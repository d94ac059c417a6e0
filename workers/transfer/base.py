"""What is asked of a transfer, what it answers, and what a backend must be able to do. Knows no backend.

A pull copies whole KV blocks from a peer's pool into ours, then the peer's generation words for them, and reports
`Pulled` only if those are the words the peer had published: a seqlock over the network. Reads cannot be aborted, so a
pull that misses its deadline is reported as failed *and in flight*; its local blocks must not be used for anything else
until `Settled`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import KvRegion
from tercet.workers.transfer.codec_choice import Codec

HOST = -1
"""Device number of host memory."""


class JobId(NamedTuple):
    """Names one pull for ever: the `number`-th pull of a request under one epoch of its destination."""

    request: RequestId
    epoch: Epoch
    number: int


@dataclass(frozen=True, slots=True)
class HeadShare:
    """Which part of a model's KV heads lies in a rank's memory: the `rank`-th of `ranks` equal runs, in every plane."""

    rank: int
    ranks: int
    planes: int
    """Keys and values of each layer."""
    heads: int
    """Of the whole model."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Our KV pool as backends see it; it must outlive the transfer and never move."""

    address: int
    """Of block 0; block `i` lies `i * block_bytes` behind it."""
    block_bytes: int
    blocks: int
    generation_address: int
    """Of block 0's generation word; 8 bytes each, in host memory."""
    device: int = HOST
    """CUDA device of the blocks, or `HOST`."""
    share: HeadShare | None = None
    """Without it, blocks can be copied only from peers of one rank."""


class PullJob(msgspec.Struct, frozen=True, tag=True):
    """Copy `remote_blocks[i]` of `peer` into `local_blocks[i]`; valid only while its word is `generations[i]`."""

    id: JobId
    peer: str
    """A name given to `Transfer.add_peer` before."""
    remote_blocks: tuple[BlockId, ...]
    local_blocks: tuple[BlockId, ...]
    generations: tuple[int, ...]
    codec: Codec = Codec.NONE
    """Unless `NONE`, `remote_blocks` and `generations` are those of the peer's staging memory, where blocks lie packed."""


# ---- answers ---------------------------------------------------------------------------------------------------------


class Pulled(msgspec.Struct, frozen=True, tag=True):
    """The blocks are here and are what was published."""

    job: JobId
    bytes: int
    """That travelled; fewer than the blocks have if they were packed."""
    seconds: float
    """From the first post to the last check, and to the end of unpacking."""
    codec: Codec = Codec.NONE
    decode_s: float = 0.0
    """Of `seconds`: unpacking."""


class PullFailed(msgspec.Struct, frozen=True, tag=True):
    """Nothing of this job may be used. `in_flight`: its local blocks may still be written until `Settled`."""

    job: JobId
    reason: str
    in_flight: bool


class Settled(msgspec.Struct, frozen=True, tag=True):
    """Follows a `PullFailed` that was in flight: nothing writes into the job's local blocks any more."""

    job: JobId


TransferEvent = Pulled | PullFailed | Settled
Deliver = Callable[[TransferEvent], None]
"""Called on the transfer's own thread; must not block."""


class Transfer(Protocol):
    """Pulls blocks; every method may be called from any thread and returns at once."""

    @property
    def region(self) -> KvRegion:
        """What peers need to read from us; rank 0's, where the KV is shared out."""
        ...

    @property
    def others(self) -> tuple[KvRegion, ...]:
        """The further ranks', in their order."""
        ...

    @property
    def staged(self) -> KvRegion | None:
        """What peers need to read packed blocks from us."""
        ...

    @property
    def unsettled(self) -> int:
        """Pulls accepted and not over, quarantined ones included."""
        ...

    def add_peer(
        self,
        peer: str,
        region: KvRegion,
        staged: KvRegion | None = None,
        others: Sequence[KvRegion] = (),
    ) -> None:
        """Make a peer known under its agent's name, `worker:incarnation`; idempotent. `staged` is its memory for packed blocks,
        `others` that of its further ranks."""
        ...

    def remove_peer(self, peer: str) -> None:
        """Forget a peer as soon as no read from it is in flight; idempotent."""
        ...

    def pull(self, job: PullJob) -> None:
        """Start a pull; answered by `Pulled`, or by `PullFailed` and, if that was in flight, `Settled`."""
        ...

    def expect_readers(self, readers: int) -> None:
        """How many requests peers may be reading from us now; it sets how often we help their reads along."""
        ...


class Decoder(Protocol):
    """Turns packed blocks into blocks of our pool; used by the transfer's thread only."""

    @property
    def memory(self) -> Memory:
        """Where packed blocks are read into."""
        ...

    def take(self, count: int) -> tuple[BlockId, ...] | None:
        """So many places of `memory`, kept until `give_back`; None when there are not enough."""
        ...

    def give_back(self, slots: Iterable[BlockId]) -> None:
        """Nothing is read into these places any more."""
        ...

    def decode(self, slots: Sequence[BlockId], blocks: Sequence[BlockId], codec: Codec) -> None:
        """Fill `blocks[i]` with what lies packed in `slots[i]`; done when it returns."""
        ...


# ---- backends --------------------------------------------------------------------------------------------------------


Words = npt.NDArray[np.uint64]
"""Generation words, or addresses and lengths in bytes."""
Spans = Words
"""Shape [copies, 3]: local address, remote address and length of each contiguous copy."""


class Kind(Enum):
    """What is read: blocks may lie on a device, words always lie in host memory."""

    BLOCKS = auto()
    WORDS = auto()


class Read(Protocol):
    """A read that was posted."""

    def done(self) -> bool:
        """Whether it has ended well; raises `TransferFailed` when it has ended badly. Do not ask again after either."""
        ...


class Agent(Protocol):
    """A backend's endpoint. Created, used and closed by one thread only."""

    @property
    def metadata(self) -> bytes:
        """Lets another agent of this backend read our memory."""
        ...

    def add_peer(self, peer: str, region: KvRegion) -> None:
        """May block for seconds on an unreachable peer; raises `TransferFailed`."""
        ...

    def remove_peer(self, peer: str) -> None:
        """Only when no read from this peer is in flight."""
        ...

    def read(self, peer: str, kind: Kind, spans: Spans) -> Read:
        """Post one read; raises `TransferFailed` when nothing was posted."""
        ...

    def progress(self) -> None:
        """Let reads of our own and of our peers advance; must be called all through the agent's life."""
        ...

    def close(self) -> None:
        """End the agent; reads still in flight end with it."""
        ...


class OpenAgent(Protocol):
    """Creates a backend's agent on the thread that will own it."""

    def __call__(
        self, name: str, memory: Memory, arrivals: Words, staging: Sequence[Memory]
    ) -> Agent:
        """`arrivals`: where generation words are read to; outlives the agent. `staging`: further memory to read from and into."""
        ...
