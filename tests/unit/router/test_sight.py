"""What is seen of the workers for one request: reports, what is known better, and who waits at this door."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from tercet.blocks import HashDomain
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.latency import Coefficients
from tercet.role import Role
from tercet.router.hearsay import Hearsay
from tercet.router.ledger import Ledger
from tercet.router.policy import Ask, WorkerView
from tercet.router.pool import Peer, Roster
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.sight import ASSUMED_TOKENS_PER_S, Sight
from tercet.wire import Endpoint, LoadReport

MakeEndpoint = Callable[..., Endpoint]
TOKENS = 160


def report(pending: int, token_s: float = 0.001) -> LoadReport:
    return LoadReport(
        role=Role.DECODE,
        waiting=0,
        running=0,
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending,
        context_tokens=0,
        blocks_total=100,
        blocks_used=0,
        prefill_coefficients=(0.0, token_s, 0.0),
    )


@dataclass(eq=False)
class Worker:
    """A peer that last reported at 10 s."""

    endpoint: Endpoint
    report: LoadReport | None
    connected: bool = True
    retired: bool = False

    @property
    def usable(self) -> bool:
        return self.connected and not self.retired

    def report_age_s(self, now_s: float) -> float:
        return now_s - 10.0

    def suspect(self, now_s: float) -> bool:
        return now_s > 11.0


@dataclass
class House:
    """A pool of decode workers, who holds what at the door, and what is seen."""

    workers: dict[WorkerId, Worker] = field(default_factory=dict)
    held_tokens: dict[WorkerId, int] = field(default_factory=dict)
    ledger: Ledger = field(default_factory=Ledger)
    index: PrefixIndex = field(default_factory=lambda: PrefixIndex(1024))

    def __post_init__(self) -> None:
        self.sight = Sight(self, self.ledger, self.index, Hearsay(1, 16), self)

    def roster(self, role: Role) -> Roster:
        sessions: dict[WorkerId, Peer] = dict(self.workers) if role is Role.DECODE else {}
        return Roster(sessions, frozenset(sessions))

    def ahead_tokens(self, ask: Ask, view: WorkerView, coefficients: Coefficients) -> int:
        return self.held_tokens.get(view.worker, 0)

    def ask(self, at_s: float = 10.0, session: str = "") -> Ask:
        prefix = Prefix(list(range(TOKENS)), 16, HashDomain())
        return Ask(RequestId("r"), TOKENS, session=session, names=prefix.names, at_s=at_s)

    def view(self, name: str, **when: float) -> WorkerView:
        view = self.sight.pools(self.ask(**when), frozenset())(Role.DECODE).find(WorkerId(name))
        assert view is not None
        return view


@pytest.fixture
def house(endpoint: MakeEndpoint) -> House:
    made = House()
    for name in ("decode-0", "decode-1"):
        made.workers[WorkerId(name)] = Worker(endpoint(name), report(1000))
    return made


def test_what_a_worker_has_computed_since_its_report_is_taken_off(house: House) -> None:
    assert house.view("decode-0", at_s=10.0).pending_tokens == 1000
    assert house.view("decode-0", at_s=10.25).pending_tokens == 750
    assert house.view("decode-0", at_s=99.0).pending_tokens == 0


def test_what_we_have_sent_since_is_not(house: House) -> None:
    with house.ledger.slot() as slot:
        slot.charge(
            house.workers[WorkerId("decode-0")].endpoint, tokens=300, context_tokens=300, now_s=10.1
        )
        assert house.view("decode-0", at_s=10.25).pending_tokens == 750 + 300


def test_who_waits_at_the_door_for_a_worker_is_ahead_too(house: House) -> None:
    house.held_tokens[WorkerId("decode-0")] = 500
    view = house.view("decode-0")
    assert (view.pending_tokens, view.held_tokens, view.ahead_tokens) == (1000, 500, 1500)
    assert view.load_tokens == house.view("decode-1").load_tokens + 500


def test_a_worker_without_a_fit_is_seen_by_the_last_fit_of_another_one(house: House) -> None:
    view = house.view("decode-0")
    strange = WorkerView(view.endpoint, None, 0.0, False, 0, 0, 0)
    assert house.sight.coefficients(strange) == (0.0, 0.001, 0.0)
    assert House().sight.coefficients(strange) == (0.0, 1 / ASSUMED_TOKENS_PER_S, 0.0)


def test_the_time_that_is_pending_is_that_of_the_view(house: House) -> None:
    pending_s = house.sight.pending_s(Role.DECODE, WorkerId("decode-0"), 10.25)
    assert pending_s == pytest.approx(0.75)


def test_nothing_is_pending_for_us_at_who_may_not_be_asked(house: House) -> None:
    seen = house.sight.pending_s
    assert seen(Role.DECODE, WorkerId("decode-0"), 11.5) is None, "suspect"
    assert seen(Role.PREFILL, WorkerId("decode-0"), 10.0) is None, "of another pool"
    house.workers[WorkerId("decode-1")].retired = True
    assert seen(Role.DECODE, WorkerId("decode-1"), 10.0) is None


def test_reports_are_those_of_who_may_be_asked(house: House) -> None:
    house.workers[WorkerId("decode-1")].connected = False
    assert list(house.sight.reports(Role.DECODE)) == [report(1000)]
    house.workers[WorkerId("decode-0")].report = None
    assert list(house.sight.reports(Role.DECODE)) == []


def test_a_prefix_that_was_sent_is_a_hit_and_one_that_was_refused_is_not(house: House) -> None:
    ask, worker = house.ask(session="talk"), house.workers[WorkerId("decode-0")].endpoint
    house.sight.note(ask, worker, ask.names[:4])
    assert house.view("decode-0").hit_tokens == 64
    house.sight.note(ask, worker, ask.names)
    assert house.view("decode-0").hit_tokens == TOKENS
    house.sight.take_back(ask, worker, ask.names[4:])
    assert house.view("decode-0").hit_tokens == 64
    assert house.view("decode-1").hit_tokens == 0


def test_what_another_life_of_the_worker_had_is_gone(house: House, endpoint: MakeEndpoint) -> None:
    ask = house.ask(session="talk")
    house.sight.note(ask, house.workers[WorkerId("decode-0")].endpoint, ask.names)
    again = endpoint("decode-0", "life-2")
    assert again.incarnation == Incarnation("life-2")
    house.workers[WorkerId("decode-0")].endpoint = again
    assert house.view("decode-0").hit_tokens == 0
