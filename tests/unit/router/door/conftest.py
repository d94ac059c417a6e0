"""A door over made-up workers that are told what to report, and a clock that moves when told to."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from tercet.blocks import HashDomain
from tercet.clock import ManualClock
from tercet.config import SloConfig
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.router.dispatch import Dispatch
from tercet.router.door import (
    NEVER_S,
    Door,
    DoorRules,
    FairShare,
    Lines,
    Sent,
    Ticket,
    TurnedAway,
    Verdict,
)
from tercet.router.errand import Errand
from tercet.router.hearsay import Hearsay
from tercet.router.ledger import Ledger
from tercet.router.policies import POLICIES
from tercet.router.policy import Rank
from tercet.router.pool import Peer, Roster
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.routes import Routes
from tercet.router.sight import Sight
from tercet.router.split import Split
from tercet.wire import Endpoint, LoadReport

TOKENS_PER_S = 1000
"""What every worker here prefills."""
SUSPECT_S = 1.0
TTFT_S = 5.0
"""Promised."""


@dataclass(eq=False)
class Worker:
    """A peer that says what it is told to say."""

    endpoint: Endpoint
    report: LoadReport | None = None
    heard_s: float = 0.0
    connected: bool = True
    retired: bool = False

    @property
    def usable(self) -> bool:
        return self.connected and not self.retired

    def report_age_s(self, now_s: float) -> float:
        return now_s - self.heard_s

    def suspect(self, now_s: float) -> bool:
        return self.report_age_s(now_s) > SUSPECT_S


class Pool:
    """The seats of a cluster whose workers do everything."""

    def __init__(self) -> None:
        self.workers: dict[WorkerId, Worker] = {}
        self._roster = Roster()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.workers.values())

    def roster(self, role: Role) -> Roster:
        return self._roster if role is Role.DECODE else Roster()

    def join(self, name: str, now_s: float, life: str = "1") -> Worker:
        worker = WorkerId(name)
        endpoint = Endpoint(worker, Incarnation(life), Role.DECODE, "127.0.0.1", 1, host_id="here")
        self.workers[worker] = Worker(endpoint, heard_s=now_s)
        self._enrol()
        return self.workers[worker]

    def part(self, name: str) -> None:
        del self.workers[WorkerId(name)]
        self._enrol()

    def _enrol(self) -> None:
        sessions: dict[WorkerId, Peer] = dict(self.workers)
        self._roster = Roster(sessions, frozenset(sessions))


@dataclass
class Hall:
    """A door, its workers, and who was sent where."""

    pool: Pool
    ledger: Ledger
    clock: ManualClock
    fair: FairShare
    lines: Lines
    dispatch: Dispatch
    door: Door
    slo: SloConfig
    patience_s: float = 30.0
    sent: dict[str, str] = field(default_factory=dict)
    """Request → the worker it was last sent to, in order."""
    away: dict[str, Exception] = field(default_factory=dict)
    requests: int = 0

    @property
    def now_s(self) -> float:
        return self.clock.now_s()

    def ticket(
        self,
        name: str = "",
        tokens: int = 100,
        *,
        prompt: str = "",
        tenant: str = "",
        priority: int = 0,
        deadline_s: float = NEVER_S,
    ) -> Ticket:
        """A request that has not entered; `prompt` names its text, which is its own unless said."""
        self.requests += 1
        name = name or f"r{self.requests}"
        seed = random.Random(prompt or name).randrange(30_000)
        text = [(seed + 17 * position) % 32_000 for position in range(tokens)]
        spec = RequestSpec(RequestId(name), text, Sampling(max_tokens=4), priority=priority)
        errand = Errand(spec, Prefix(text, 16, HashDomain()), self.ledger.slot())
        due_s = self.now_s + self.slo.ttft_ms / 1e3
        useless_s = self.now_s + deadline_s
        return Ticket(
            errand=errand,
            rank=Rank(priority, tenant, self.fair.tag(tenant, tokens), min(due_s, useless_s)),
            entered_s=self.now_s,
            give_up_s=self.now_s + self.patience_s,
            deadline_s=min(due_s, useless_s) if self.slo.enforced else useless_s,
        )

    def enter(self, name: str = "", tokens: int = 100, **wishes: object) -> Ticket:
        """A request comes."""
        ticket = self.ticket(name, tokens, **wishes)  # type: ignore[arg-type]
        self.note(self.door.enter(ticket, self.now_s))
        return ticket

    def note(self, verdicts: list[Verdict]) -> None:
        self.door.validate()
        self.ledger.validate()
        for verdict in verdicts:
            name = str(verdict.ticket.id)
            if isinstance(verdict, Sent):
                self.sent.pop(name, None)
                self.sent[name] = verdict.route.view.worker
            else:
                assert isinstance(verdict, TurnedAway)
                self.away[name] = verdict.error

    def report(self, name: str, pending: int = 0) -> None:
        """The worker says how much it has to prefill; everything that was sent before is in it."""
        worker = self.pool.workers[WorkerId(name)]
        worker.report, worker.heard_s = load_report(pending), self.now_s
        self.ledger.reconcile(worker.endpoint, self.now_s)
        self.note(self.door.news(WorkerId(name), self.now_s))

    @staticmethod
    def report_of(pending: int, running: int = 0) -> LoadReport:
        return load_report(pending, running)

    def first_token(self, ticket: Ticket) -> None:
        worker = self.pool.workers[WorkerId(self.sent[str(ticket.id)])]
        ticket.errand.slot.prefilled(worker.endpoint)
        ticket.first_s = self.now_s
        self.note(self.door.first_token(worker.endpoint.worker, self.now_s))

    def refuse(self, ticket: Ticket, retry_after_s: float = 0.5) -> None:
        """Its worker does not take it; it comes back."""
        worker = self.pool.workers[WorkerId(self.sent[str(ticket.id)])]
        ticket.errand.slot.strike(worker.endpoint)
        self.door.refused(worker.endpoint.worker, retry_after_s, self.now_s)
        self.note(self.door.enter(ticket, self.now_s))

    def end(self, ticket: Ticket) -> None:
        """It is over, or its client has left."""
        ticket.errand.slot.__exit__(None, None, None)
        self.note(self.door.done(ticket, self.now_s))

    def look(self) -> None:
        self.note(self.door.look(self.now_s))

    def later(self, seconds: float, *, reports: bool = True) -> None:
        """Time passes, with the looks that the door has asked for; every worker says that it lives, or not."""
        until_s = self.now_s + seconds
        while (wake_s := self.door.wake_at_s) <= until_s:
            self.clock.advance(max(0.0, wake_s - self.now_s))
            if reports:
                self._live()
            self.note(self.door.wake(self.now_s))
        self.clock.advance(until_s - self.now_s)
        if reports:
            self._live()

    def _live(self) -> None:
        for worker in self.pool.workers.values():
            if worker.report is not None:
                computed = int(TOKENS_PER_S * (self.now_s - worker.heard_s))
                pending = max(0, worker.report.pending_prefill_tokens - computed)
                worker.report = replace(worker.report, pending_prefill_tokens=pending)
            worker.heard_s = self.now_s

    def validate_empty(self) -> None:
        """Nothing is left of anybody."""
        self.door.validate()
        assert (self.door.queued, self.door.in_flight) == (0, 0)
        assert self.ledger.charges == 0
        assert not list(self.lines)


def load_report(pending: int = 0, running: int = 0) -> LoadReport:
    return LoadReport(
        role=Role.DECODE,
        waiting=0,
        running=running,
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending,
        context_tokens=0,
        blocks_total=1000,
        blocks_used=0,
        prefill_coefficients=(0.0, 1 / TOKENS_PER_S, 0.0),
        decode_coefficients=(0.010, 0.001, 0.0),
    )


OpenHall = Callable[..., Hall]


@pytest.fixture(scope="session")
def hall() -> OpenHall:
    """Opens a hall with so many workers w0, w1 …, all idle; a worker is sent more while it has at most `ahead_s` to do."""

    def open_hall(
        workers: int = 1,
        *,
        policy: str = "min_ttft",
        places: int = 1000,
        queue_max: int = 1000,
        ahead_s: float = 0.5,
        patience_s: float = 30.0,
        enforced: bool = False,
        ttft_s: float = TTFT_S,
        itl_s_max: float = NEVER_S,
        weight: Callable[[str], float] = lambda tenant: 1.0,
        options: dict[str, float] | None = None,
    ) -> Hall:
        dice, pool, ledger = random.Random(7), Pool(), Ledger()
        slo = SloConfig(ttft_ms=1e3 * ttft_s, enforced=enforced)
        lines, fair = Lines(), FairShare(weight)
        chosen = POLICIES.options(policy, options or {}).aimed_at(slo)
        routes = Routes(chosen.build(dice), chosen.build(dice), Split(32))
        sight = Sight(pool, ledger, PrefixIndex(2**16), Hearsay(1, 16), lines)
        dispatch = Dispatch(routes, sight, ledger, lambda: pool)
        rules = DoorRules(places, queue_max, ahead_s, itl_s_max)
        door = Door(dispatch, lines, rules, fair, dice)
        hall = Hall(pool, ledger, ManualClock(100.0), fair, lines, dispatch, door, slo, patience_s)
        for number in range(workers):
            pool.join(f"w{number}", hall.now_s).report = load_report()
        return hall

    return open_hall
