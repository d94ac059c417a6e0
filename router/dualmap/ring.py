"""A hash ring that is asked twice: two hashes of a key lead to two workers (consistent hashing, Karger et al., 1997).

Knows names of workers and 64-bit keys. Every front door that has the same members draws the same ring, whatever the order
in which they came.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from blake3 import blake3

from tercet.ids import WorkerId
from tercet.router.prefix_names import mix

_SIDES = (0x243F6A8885A308D3, 0x13198A2E03707344)
"""What makes two hash functions of one: digits of pi."""

_SPAN = 2**64


class Ring:
    """Each worker stands at `points_per_worker` places; a key belongs to the next one clockwise.

    A lookup is a bisection; a join or leave touches the worker's own arcs only. The places are one array, because a list
    of 128,000 numbers does not stay in a core's cache between two requests.
    """

    def __init__(self, points_per_worker: int) -> None:
        assert points_per_worker > 0, points_per_worker
        self._points_per_worker = points_per_worker
        self._places = array("Q")
        self._owners: list[WorkerId] = []
        self._members: frozenset[WorkerId] = frozenset()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def members(self) -> frozenset[WorkerId]:
        return self._members

    def sync(self, members: AbstractSet[WorkerId]) -> None:
        """Let in who is new and out who is gone; free of cost when `members` is the object of the last time."""
        if members is self._members:
            return
        stay = self._members & members
        points = zip(self._places, self._owners, strict=True)
        whole = [(place, owner) for place, owner in points if owner in stay]
        for worker in members - stay:
            whole += self._points(worker)
        whole.sort()  # runs that are sorted already are merged, not sorted again
        self._places = array("Q", [place for place, _ in whole])
        self._owners = [owner for _, owner in whole]
        self._members = frozenset(members)

    def pair(self, key: int) -> tuple[WorkerId, ...]:
        """The two workers of a key; where both hashes lead to one worker, the second is its next neighbour clockwise.

        One when there is only one member, none when there is none.
        """
        first = next(self.walk(key, 0), None)
        if first is None:
            return ()
        second = next((worker for worker in self.walk(key, 1) if worker != first), None)
        return (first,) if second is None else (first, second)

    def walk(self, key: int, side: int) -> Iterator[WorkerId]:
        """All workers in the order in which one would follow the other as the key's owner, by hash `side` (0 or 1)."""
        owners, members = self._owners, len(self._members)
        if not owners:
            return
        start = bisect_left(self._places, mix(key ^ _SIDES[side])) % len(owners)
        yield owners[start]  # nearly always the only one who is asked for
        met = {owners[start]}
        for offset in range(start + 1, start + len(owners)):
            if len(met) == members:
                return
            worker = owners[offset % len(owners)]
            if worker not in met:
                met.add(worker)
                yield worker

    def _points(self, worker: WorkerId) -> list[tuple[int, WorkerId]]:
        base = int.from_bytes(blake3(worker.encode()).digest(8))
        return [(mix((base + nth) % _SPAN), worker) for nth in range(self._points_per_worker)]
