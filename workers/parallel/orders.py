"""What a worker says to its followers, and what they answer."""

from msgspec import Struct

from tercet.config import EngineConfig, ModelConfig


class Settings(Struct, frozen=True):
    """A follower's command line."""

    rank: int
    ranks: int
    model: ModelConfig
    engine: EngineConfig
    parent: int
    """Pid of the worker's process."""
    work: int = -1
    """Inherited file descriptor on which `WorkOrder` comes."""
    word: int = -1
    """The same for everything else."""


# ---- worker -> follower, the engine's thread -------------------------------------------------------------------------


class Join(Struct, frozen=True, tag=True):
    """All ranks have loaded: meet at this port of this host."""

    port: int


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


WordOrder = Stop

# ---- follower -> worker ----------------------------------------------------------------------------------------------


class Loaded(Struct, frozen=True, tag=True):
    """The model is here."""


class Unable(Struct, frozen=True, tag=True):
    """The follower is about to end, for this reason."""

    reason: str


Answer = Loaded | Unable
