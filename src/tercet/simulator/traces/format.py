"""What a reader of one format offers. Readers yield what a file holds, in its order and on its clock."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tercet.simulator.traces.arrival import Arrival, ClosedSession
from tercet.simulator.traces.lengths import Lengths


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What a file leaves open. Each format takes what it needs."""

    block_tokens: int = 64
    """Of formats that publish no blocks of their own."""
    seed: int = 0
    """Of formats that are drawn."""
    span_s: float = 3600.0
    """Of formats that are drawn and have no end of their own."""
    prompt: Lengths | None = None
    output: Lengths | None = None
    """Both together replace the lengths of formats that draw them; without any of their own those need them."""

    def __post_init__(self) -> None:
        assert self.block_tokens > 0 < self.span_s, f"cannot read anything with {self}"


@dataclass(frozen=True, slots=True)
class ArrivalFormat:
    """A format of open loops."""

    name: str
    recognises: Callable[[Path, str], bool]
    """Whether a file is of this format, judged by its path and its beginning (empty for a folder)."""
    read: Callable[[Path, ReadOptions, Counter[str]], Iterator[Arrival]]
    block_tokens: int = 0
    """As published; 0 where the options decide."""
    own_clock: bool = False
    """Times count from a start that means something: the first request need not be at 0."""


@dataclass(frozen=True, slots=True)
class SessionFormat:
    """A format of closed loops."""

    name: str
    recognises: Callable[[Path, str], bool]
    read: Callable[[Path, ReadOptions], Iterator[ClosedSession]]
    block_tokens: int
