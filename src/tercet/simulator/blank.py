"""Tokens of which nothing is known but how many they are. Prompts are long, and nobody looks at what they say."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import SupportsIndex, overload

TOKEN = 0
"""What every prompt and every output is made of."""


class Blank(list[int]):
    """A list of so many `TOKEN`s that takes no time to make, copy or grow. Only what is defined here may be done with it."""

    __slots__ = ("_length",)

    def __init__(self, length: int) -> None:
        super().__init__()
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return repeat(TOKEN, self._length)

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> int | list[int]:
        if isinstance(index, slice):
            return [TOKEN] * len(range(*index.indices(self._length)))
        assert -self._length <= index.__index__() < self._length, f"{index=} {self}"
        return TOKEN

    def __add__(self, other: list[int]) -> "Blank":  # type: ignore[override]
        return Blank(self._length + len(other))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and [*self] == [*other]

    __hash__ = None

    def __repr__(self) -> str:
        return f"Blank({self._length})"

    def append(self, token: int) -> None:
        self._length += 1

    def extend(self, tokens: Iterable[int]) -> None:
        assert isinstance(tokens, list | tuple), f"nobody knows how many {tokens} are"
        self._length += len(tokens)
