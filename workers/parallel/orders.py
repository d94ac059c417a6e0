"""What a worker says to its followers, and what they answer."""

from msgspec import Struct

from tercet.config import EngineConfig, ModelConfig, TransferConfig
from tercet.wire import KvRegion
from tercet.workers.transfer.base import Pulled, PullFailed, PullJob, Settled


class Settings(Struct, frozen=True):
    """A follower's command line."""

    rank: int
    ranks: int
    model: ModelConfig
    engine: EngineConfig
    work: int = -1
    """Inherited file descriptor on which `WorkOrder` comes."""
    word: int = -1
    """The same for everything else."""
    memory: int = -1
    """The same for what is summed on a CPU, and `peers` for the sockets to the other ranks."""
    peers: tuple[int, ...] = ()


# ---- worker -> follower, the engine's thread -------------------------------------------------------------------------


class Join(Struct, frozen=True, tag=True):
    """All ranks have loaded: from now on sums are those of all. On GPUs they meet at this port."""

    port: int = 0


class Share(Struct, frozen=True, array_like=True):
    """A `Slice` as far as a follower must know it."""

    tokens: list[int]
    start: int
    blocks: list[int]


class Compute(Struct, frozen=True, tag=True):
    """One step."""

    shares: list[Share]


WorkOrder = Join | Compute

# ---- worker -> follower, everything else -----------------------------------------------------------------------------


class Stop(Struct, frozen=True, tag=True):
    """End in good order. The end of the pipe without it means that the worker is dead."""


class OpenTransfer(Struct, frozen=True, tag=True):
    """Let peers read from you, by an agent of this name; answered by `Opened`."""

    agent: str
    config: TransferConfig


class AddPeer(Struct, frozen=True, tag=True):
    """See `Transfer`."""

    peer: str
    region: KvRegion
    others: tuple[KvRegion, ...]


class RemovePeer(Struct, frozen=True, tag=True):
    """See `Transfer`."""

    peer: str


class ExpectReaders(Struct, frozen=True, tag=True):
    """See `Transfer`."""

    readers: int


WordOrder = Stop | OpenTransfer | AddPeer | RemovePeer | ExpectReaders | PullJob

# ---- follower -> worker ----------------------------------------------------------------------------------------------


class Loaded(Struct, frozen=True, tag=True):
    """The model is here."""


class Unable(Struct, frozen=True, tag=True):
    """The follower is about to end, for this reason."""

    reason: str


class Opened(Struct, frozen=True, tag=True):
    """What peers need to read from the follower."""

    region: KvRegion


Answer = Loaded | Unable | Opened | Pulled | PullFailed | Settled
