"""Workers of a pool in an order that nobody can foresee: for choices among a few of many."""

from collections.abc import Iterator

from tercet.ids import WorkerId
from tercet.router.policy import Dice, Pool, WorkerView


class Lot:
    """Draws without putting back, and touches no more seats than it draws."""

    def __init__(self, dice: Dice) -> None:
        self._dice = dice
        self._members: frozenset[WorkerId] = frozenset()
        self._seats: tuple[WorkerId, ...] = ()

    def draw(self, pool: Pool, draws_max: int) -> Iterator[WorkerView]:
        """Different workers in an even order, `draws_max` at most; who may not be asked is left out."""
        if pool.members is not self._members:
            self._members, self._seats = pool.members, tuple(sorted(pool.members))
        moved: dict[int, int] = {}  # a shuffle that touches only the seats it has drawn
        count = len(self._seats)
        for last in range(count - 1, max(-1, count - 1 - draws_max), -1):
            drawn = self._dice.randrange(last + 1)
            view = pool.find(self._seats[moved.get(drawn, drawn)])
            moved[drawn] = moved.get(last, last)
            if view is not None:
                yield view
