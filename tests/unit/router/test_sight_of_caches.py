"""What a front door sees of caches: what it sent itself, and what others are said to have sent."""

from collections.abc import Callable, Iterable

import pytest

from tercet.ids import RequestId, WorkerId
from tercet.latency import Coefficients
from tercet.role import Role
from tercet.router.hearsay import Hearsay
from tercet.router.ledger import Ledger, life_of
from tercet.router.policy import Ask, Pool, WorkerView
from tercet.router.pool import Peer, Roster
from tercet.router.prefix_index import PrefixIndex
from tercet.router.prefix_names import PrefixName, mix
from tercet.router.sight import Sight
from tercet.simulator.entrance import Acquaintance
from tercet.wire import Endpoint

MakeEndpoint = Callable[..., Endpoint]
NAMES = [PrefixName(mix(depth)) for depth in range(8)]
ASK = Ask(RequestId("r"), 8 * 256, names=NAMES, block_tokens=256)


class Hall:
    """Three workers, connected and silent, before whom nothing waits."""

    def __init__(self, endpoint: MakeEndpoint) -> None:
        self.ours, self.theirs = PrefixIndex(100), Hearsay(100, ASK.block_tokens)
        self.endpoints = {name: endpoint(f"decode-{name}") for name in "abc"}
        self._sight = Sight(self, Ledger(), self.ours, self.theirs, self)

    def roster(self, role: Role) -> Roster:
        peers: dict[WorkerId, Peer] = {
            seat.worker: Acquaintance(seat, suspect_s=1.0) for seat in self.endpoints.values()
        }
        return Roster(peers, frozenset(peers))

    def ahead_tokens(self, ask: Ask, view: WorkerView, coefficients: Coefficients) -> int:
        return 0

    def sent(self, name: str, blocks: int) -> None:
        self.ours.record(life_of(self.endpoints[name]), NAMES[:blocks])

    def said(self, name: str, blocks: int) -> None:
        self.theirs.learn(life_of(self.endpoints[name]), self.theirs.told(NAMES[:blocks]))

    @property
    def pool(self) -> Pool:
        return self._sight.pools(ASK, frozenset())(Role.DECODE)


@pytest.fixture
def hall(endpoint: MakeEndpoint) -> Hall:
    return Hall(endpoint)


def hits(views: Iterable[WorkerView]) -> dict[str, int]:
    return {view.worker[-1]: view.hit_tokens // 256 for view in views}


def test_of_what_we_sent_and_what_others_sent_the_longer_counts(hall: Hall) -> None:
    hall.sent("a", 5)
    hall.said("a", 2)
    hall.sent("b", 1)
    hall.said("b", 6)
    hall.said("c", 4)
    assert hits(hall.pool) == {"a": 5, "b": 6, "c": 4}
    for seat in hall.endpoints.values():
        view = hall.pool.find(seat.worker)
        assert view is not None
        assert view.hit_tokens == 256 * hits(hall.pool)[seat.worker[-1]]


def test_the_nearest_come_in_the_order_of_what_counts_and_once_each(hall: Hall) -> None:
    hall.sent("a", 5)
    hall.said("a", 2)
    hall.sent("b", 1)
    hall.said("b", 6)
    hall.said("c", 4)
    assert list(hits(hall.pool.nearest()).items()) == [("b", 6), ("a", 5), ("c", 4)]
    assert len(list(hall.pool.nearest())) == 3
    assert list(hits(hall.pool.nearest(4 * 256)).items()) == [("b", 6), ("a", 5)]
    assert list(hall.pool.nearest(6 * 256)) == []
