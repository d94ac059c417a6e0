"""What is to be copied between device and host, and what is asked of whoever copies."""

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple, Protocol

from tercet.ids import BlockId
from tercet.workers.host_tier.host_pool import HostBlock


class Direction(StrEnum):
    """Which way."""

    SAVE = "save"
    """From the device to the host."""
    FETCH = "fetch"
    """From the host to the device."""


class Span(NamedTuple):
    """So many blocks that are neighbours on both sides, from these on."""

    block: BlockId
    slot: HostBlock
    length: int


class Copies(NamedTuple):
    """Block `blocks[i]` of the device and `slots[i]` of the host, copied whole and said to be over in one piece."""

    number: int
    """Rises with every order."""
    direction: Direction
    blocks: tuple[BlockId, ...]
    slots: tuple[HostBlock, ...]

    @property
    def spans(self) -> Iterator[Span]:
        """Fewest pieces, in order."""
        blocks, slots, start = self.blocks, self.slots, 0
        for i in range(1, len(blocks) + 1):
            goes_on = i < len(blocks) and blocks[i] - blocks[i - 1] == slots[i] - slots[i - 1] == 1
            if not goes_on:
                yield Span(blocks[start], slots[start], i - start)
                start = i


class Copier(Protocol):
    """Moves the bytes. Until an order is over nobody else writes what it reads, or touches what it writes."""

    def submit(self, copies: Copies) -> None:
        """Begin, and return before it is done if that takes long."""
        ...

    def done(self) -> list[int]:
        """The numbers of those that are over and were not told of before."""
        ...

    def wait(self) -> None:
        """Until at least one more is over; returns at once where none is under way."""
        ...
