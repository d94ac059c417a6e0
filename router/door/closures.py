"""Which workers take nothing for the moment, because they have said so."""

from tercet.ids import WorkerId
from tercet.router.door.ticket import NEVER_S
from tercet.router.policy import Dice

CLOSED_S_MIN = 0.02
"""Whoever refuses without a time, or at once again, is not asked in a circle."""
CLOSED_S_MAX = 10.0
JITTER = 0.25
"""Not everybody comes back in the same moment."""
CONTESTED_S = 5.0
"""So long after a refusal others are thought to want the same worker."""


class Closures:
    """Until when whom. One that has passed is kept until somebody asks who has opened."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._until_s: dict[WorkerId, float] = {}
        self._refused_s: dict[WorkerId, float] = {}
        """The last time, of late."""
        self.next_s = NEVER_S
        """The first one may end then, and none before."""

    def __len__(self) -> int:
        return len(self._until_s)

    def close(self, worker: WorkerId, retry_after_s: float, now_s: float) -> None:
        """For about `retry_after_s`."""
        jitter = 1 + JITTER * (self._dice.randrange(1024) / 512 - 1)
        until_s = now_s + jitter * min(max(retry_after_s, CLOSED_S_MIN), CLOSED_S_MAX)
        self._until_s[worker], self._refused_s[worker] = until_s, now_s
        self.next_s = min(self.next_s, until_s)

    def open(self, worker: WorkerId) -> None:
        """Whatever it said does not count any more."""
        self._until_s.pop(worker, None)
        self._refused_s.pop(worker, None)

    def left_s(self, worker: WorkerId, now_s: float) -> float:
        """How long it stays closed; 0 for one that is open."""
        return max(0.0, self._until_s.get(worker, 0.0) - now_s)

    def is_contested(self, worker: WorkerId, now_s: float) -> bool:
        """Whether it has refused something of late: it is wanted by others too."""
        refused_s = self._refused_s.get(worker)
        if refused_s is not None and now_s - refused_s >= CONTESTED_S:
            del self._refused_s[worker]
            return False
        return refused_s is not None

    def opened(self, now_s: float) -> list[WorkerId]:
        """Who has opened since this was asked last."""
        if now_s < self.next_s:
            return []
        opened = [worker for worker, until_s in self._until_s.items() if until_s <= now_s]
        for worker in opened:
            del self._until_s[worker]
        self.next_s = min(self._until_s.values(), default=NEVER_S)
        return opened
