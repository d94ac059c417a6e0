"""Which requests have their state on the device, and what of it the device must be told. Pure.

A request takes a seat when a token is drawn for it, and keeps it until somebody else needs it: nobody says when it ends.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tercet.workers.runner import Slice


@dataclass(slots=True)
class Seat:
    """What the device has of one request."""

    index: int
    blocks: Sequence[int] | None = None
    """The very list whose first `known` blocks are in the device's table; a list only ever grows."""
    known: int = 0
    context: int = -1
    """The device has the token at this position, which it has drawn itself, as the last one; -1 where it has none."""


@dataclass(slots=True)
class News:
    """What the device must be told before a step."""

    cells: list[tuple[int, int, int]] = field(default_factory=list)
    """A seat, a place of its block table, and the block there."""
    starts: list[tuple[int, int, int]] = field(default_factory=list)
    """A seat, its last token and that token's position."""

    def __bool__(self) -> bool:
        return bool(self.cells or self.starts)


class Seats:
    """`count` seats; no step has more requests."""

    def __init__(self, count: int) -> None:
        self._vacant = list(range(count - 1, -1, -1))
        self._seats: OrderedDict[int, Seat] = OrderedDict()
        """By request, those first that have not been in a step for longest."""

    def take(self, slices: Sequence[Slice]) -> list[Seat]:
        """A seat for each; those who have one keep it."""
        for part in slices:
            if part.request in self._seats:
                self._seats.move_to_end(part.request)
        return [self._seats.get(part.request) or self._give(part.request) for part in slices]

    def forget(self, slices: Sequence[Slice]) -> None:
        """What was drawn for these is not known to the device."""
        for part in slices:
            if seat := self._seats.get(part.request):
                seat.context = -1

    def news(self, slices: Sequence[Slice], seats: Sequence[Seat]) -> News:
        """What these slices of one token each know, and the device does not; it is thought to know it from now on."""
        news = News()
        for part, seat in zip(slices, seats, strict=True):
            if seat.blocks is not part.blocks:
                seat.blocks, seat.known = part.blocks, 0
            if seat.known < len(part.blocks):
                fresh = range(seat.known, len(part.blocks))
                news.cells += [(seat.index, place, part.blocks[place]) for place in fresh]
                seat.known = len(part.blocks)
            if seat.context != part.start:
                assert not part.fed, f"nobody knows the token at {part.start} of {part.request}"
                news.starts.append((seat.index, part.tokens[0], part.start))
        return news

    def _give(self, request: int) -> Seat:
        if self._vacant:
            seat = Seat(self._vacant.pop())
        else:
            _, former = self._seats.popitem(last=False)
            seat = Seat(former.index)
        self._seats[request] = seat
        return seat
