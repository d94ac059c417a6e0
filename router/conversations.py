"""Where a client's conversation was last and how far it had come there: a bounded memory that forgets.

The prefix index forgets block by block; of a conversation that its client has named a few marks are kept instead, the names
of prefixes at its end and ever further before it. A later turn has what the last mark says that is a prefix of it too, so a
name that is used for something else finds nothing, and a turn that was rewritten at its end still finds the beginning.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tercet.role import Role
from tercet.router.ledger import Life, life_of
from tercet.router.prefix_names import PrefixName
from tercet.wire import Endpoint

CONVERSATIONS_MAX = 8192
"""Remembered by one front door, about 1 KiB each."""
FORGET_S = 1800.0
"""After so long a worker that had anything else to do has evicted it."""


class Mark(NamedTuple):
    """The name of everything up to the end of block number `blocks`, counted from 1."""

    blocks: int
    name: PrefixName


class Home(NamedTuple):
    """The last worker of one role, with marks, deepest first."""

    life: Life
    marks: tuple[Mark, ...]


@dataclass(slots=True)
class Conversation:
    """One conversation: a home in each pool that it was in."""

    homes: dict[Role, Home]
    seen_s: float


class Conversations:
    """By the name that the client gave, which is not empty. Times are the caller's; they only run forward."""

    def __init__(
        self, conversations_max: int = CONVERSATIONS_MAX, forget_s: float = FORGET_S
    ) -> None:
        assert conversations_max > 0, conversations_max
        self._conversations_max, self._forget_s = conversations_max, forget_s
        self._known: OrderedDict[str, Conversation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def record(
        self, name: str, worker: Endpoint, names: Sequence[PrefixName], now_s: float
    ) -> None:
        """`worker` has, or will soon have, these leading blocks of the conversation."""
        if not name:
            return
        conversation = self._known.setdefault(name, Conversation({}, now_s))
        conversation.homes[worker.role] = Home(life_of(worker), _marks(names))
        conversation.seen_s = now_s
        self._known.move_to_end(name)
        self._forget(now_s)

    def take_back(self, name: str, worker: Endpoint) -> None:
        """`worker` did not take the last turn; what it had of earlier ones is not remembered either."""
        conversation = self._known.get(name)
        home = conversation.homes.get(worker.role) if conversation is not None else None
        if conversation is not None and home is not None and home.life == life_of(worker):
            del conversation.homes[worker.role]

    def hits(self, name: str, names: Sequence[PrefixName], now_s: float) -> dict[Life, int]:
        """How many leading blocks of `names` its last workers have for sure had; at most one worker a pool."""
        conversation = self._known.get(name)
        if conversation is None or conversation.seen_s + self._forget_s <= now_s:
            return {}
        found = {home.life: _reach(home.marks, names) for home in conversation.homes.values()}
        return {life: blocks for life, blocks in found.items() if blocks}

    def _forget(self, now_s: float) -> None:
        """Those over the bound, and those not seen for too long; the first is the one not seen longest."""
        while len(self._known) > self._conversations_max:
            self._known.popitem(last=False)
        while next(iter(self._known.values())).seen_s + self._forget_s <= now_s:
            self._known.popitem(last=False)


def _marks(names: Sequence[PrefixName]) -> tuple[Mark, ...]:
    """The end, and 1, 2, 4 … blocks before it: what diverges somewhere is found to within twice its distance."""
    blocks, step = [len(names)] if names else [], 1
    while step < len(names):
        blocks.append(len(names) - step)
        step *= 2
    return tuple(Mark(end, names[end - 1]) for end in blocks)


def _reach(marks: Sequence[Mark], names: Sequence[PrefixName]) -> int:
    for blocks, name in marks:
        if blocks <= len(names) and names[blocks - 1] == name:
            return blocks
    return 0
