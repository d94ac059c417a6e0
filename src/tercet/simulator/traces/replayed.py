"""Sequences that are read anew each time somebody walks through them, so that a trace may be larger than memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar, overload

T = TypeVar("T")


class Replayed(Sequence[T], Generic[T]):
    """Walking is all it is good at: its length costs one walk, once, and an item a walk up to it."""

    __slots__ = ("_count", "_walk")

    def __init__(self, walk: Callable[[], Iterator[T]]) -> None:
        self._walk = walk
        self._count: int | None = None

    def __iter__(self) -> Iterator[T]:
        return self._walk()

    def __len__(self) -> int:
        if self._count is None:
            self._count = sum(1 for _ in self)
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return tuple(self)[index]
        for item in islice(self, index if index >= 0 else len(self) + index, None):
            return item
        raise IndexError(index)


def derived(items: Sequence[T], change: Callable[[Iterable[T]], Iterator[T]]) -> Sequence[T]:
    """What `change` makes of the items: replayed if they are, else a tuple."""
    if isinstance(items, Replayed):
        return Replayed(lambda: change(items))
    return tuple(change(items))
