"""A front door without sockets: what its workers are told when many ask at once, refuse, vanish and return."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tercet.clock import ManualClock
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
)
from tercet.errors import DeadlineExceeded, NoWorkers, Overloaded, RequestFailed, TercetError
from tercet.ids import Incarnation, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, Sampling
from tercet.role import Role
from tercet.router.pilot import Pilot
from tercet.router.pool import Peer, Roster
from tercet.router.reception import Reception
from tercet.router.record import Tally
from tercet.wire import Adopt, Cancel, Endpoint, LoadReport, Message, Refused, Submit, Tokens

MAX_TOKENS = 4


class Later:
    """Timers of a clock that moves when told to."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.due: list[Alarm] = []

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> "Alarm":
        alarm = Alarm(self, self._clock.now_s() + delay, lambda: callback(*args))
        self.due.append(alarm)
        return alarm

    def advance(self, seconds: float) -> None:
        until_s = self._clock.now_s() + seconds
        while self.due and (alarm := min(self.due, key=lambda one: one.at_s)).at_s <= until_s:
            alarm.cancel()
            self._clock.advance(max(0.0, alarm.at_s - self._clock.now_s()))
            alarm.callback()
        self._clock.advance(until_s - self._clock.now_s())


@dataclass(eq=False)
class Alarm:
    later: Later
    at_s: float
    callback: Callable[[], object]

    def cancel(self) -> None:
        if self in self.later.due:
            self.later.due.remove(self)


@dataclass(eq=False)
class Worker:
    """Has what it was sent; says what it is told to say."""

    endpoint: Endpoint
    clock: ManualClock
    report: LoadReport | None = None
    heard_s: float = 0.0
    connected: bool = True
    retired: bool = False
    draining: bool = False
    inbox: list[Message] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.connected and not self.retired and not self.draining

    def report_age_s(self, now_s: float) -> float:
        return now_s - self.heard_s

    def suspect(self, now_s: float) -> bool:
        return self.report_age_s(now_s) > 1.0

    def submits(self) -> list[Submit]:
        return [message for message in self.inbox if isinstance(message, Submit)]


class Seats:
    """All that is left of the sessions."""

    def __init__(self) -> None:
        self.workers: dict[WorkerId, Worker] = {}

    def __iter__(self) -> Iterator[Peer]:
        return iter(self.workers.values())

    def roster(self, role: Role) -> Roster:
        sessions: dict[WorkerId, Peer] = dict(self.workers) if role is Role.DECODE else {}
        return Roster(sessions, frozenset(sessions))

    def is_left(self, worker: Endpoint) -> bool:
        return self.workers[worker.worker].draining

    def post(self, worker: Endpoint, message: Message) -> None:
        found = self.workers.get(worker.worker)
        if found is not None and found.connected:
            found.inbox.append(message)


@dataclass(eq=False)
class Reader:
    """Takes the tokens of one request."""

    is_satisfied: bool = False
    tokens: list[int] = field(default_factory=list)
    begun_times: int = 0
    finished: FinishReason | None = None
    error: TercetError | None = None
    ended: bool = False

    def begun(self) -> None:
        self.begun_times += 1

    def deliver(self, tokens: list[int], logprobs: object) -> None:
        self.tokens += tokens

    def finish(self, reason: FinishReason) -> None:
        self.finished = reason

    def fail(self, error: TercetError) -> None:
        self.error = error

    def end(self) -> None:
        self.ended = True


class Inn:
    """A reception and its guests."""

    def __init__(self, workers: int, config: ClusterConfig, seed: int) -> None:
        self.clock = ManualClock(100.0)
        self.later = Later(self.clock)
        self.seats = Seats()
        dice = random.Random(seed)
        self.reception = Reception(config, self.seats, self.clock, self.later, dice)
        self.guests: dict[Pilot, Reader] = {}
        self.asked = 0
        for number in range(workers):
            self.join(f"decode-{number}")

    def join(self, name: str, life: str = "1") -> Worker:
        endpoint = Endpoint(
            WorkerId(name), Incarnation(life), Role.DECODE, "127.0.0.1", 1, host_id="here"
        )
        worker = Worker(endpoint, self.clock, heard_s=self.clock.now_s())
        self.seats.workers[endpoint.worker] = worker
        self.reception.connected(endpoint)
        return worker

    def lose(self, name: str) -> None:
        worker = self.seats.workers.pop(WorkerId(name))
        worker.connected = False
        self.reception.lost(worker.endpoint, "silent")

    def worker(self) -> Worker:
        (worker,) = self.workers()
        return worker

    def workers(self) -> list[Worker]:
        return list(self.seats.workers.values())

    def ask(
        self, tokens: int = 100, deadline_s: float | None = None, text: int = 0, **wishes: Any
    ) -> Reader:
        """A request comes, whose text is its own unless it is said which it is."""
        self.asked += 1
        number, reader = self.asked, Reader()
        prompt = [(17 * position + 331 * (text or number)) % 32_000 for position in range(tokens)]
        spec = RequestSpec(RequestId(f"r{number}"), prompt, Sampling(max_tokens=MAX_TOKENS))
        slot = self.reception.ledger.slot()
        tally = Tally(spec.id, tokens, self.clock.now_s(), **wishes)
        pilot = self.reception.admit(spec, slot, tally, reader, deadline_s)
        self.guests[pilot] = reader
        return reader

    def release(self, reader: Reader) -> None:
        pilot = self.pilot_of(reader)
        self.reception.release(pilot)
        pilot.ticket.errand.slot.__exit__(None, None, None)
        del self.guests[pilot]

    def pilot_of(self, reader: Reader) -> Pilot:
        return next(pilot for pilot, its in self.guests.items() if its is reader)

    def refuse(
        self, worker: Worker, pending: int | None = None, retry_after_s: float = 0.5
    ) -> None:
        """The worker does not take the last one it was sent."""
        self.refuse_this(worker, worker.submits()[-1], pending, retry_after_s)

    def refuse_this(
        self, worker: Worker, submit: Submit, pending: int | None, retry_after_s: float
    ) -> None:
        worker.inbox.remove(submit)
        if worker.report is not None and pending is not None:
            worker.report = load_report(pending)
        refused = Refused(submit.spec.id, submit.epoch, "full", retry_after_s, pending)
        self.reception.heard(refused)

    def compute(self, worker: Worker) -> None:
        """Everything that it has, to the end."""
        cancelled = {each.request for each in worker.inbox if isinstance(each, Cancel)}
        for submit in worker.submits():
            worker.inbox.remove(submit)
            if submit.spec.id not in cancelled:
                self.finish(submit)

    def finish(self, submit: Submit) -> None:
        """All tokens that it lacks."""
        index, end = len(submit.output), FinishReason.LENGTH
        rest = list(range(index, MAX_TOKENS))
        self.reception.heard(Tokens(submit.spec.id, submit.epoch, index, rest, finish=end))

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds / 0.05)):
            self.later.advance(0.05)
            for worker in self.seats.workers.values():
                worker.heard_s = self.clock.now_s()
                self.reception.reported(worker.endpoint)

    def validate_empty(self) -> None:
        for reader in list(self.guests.values()):
            self.release(reader)
        self.reception.door.validate()
        assert (self.reception.door.queued, self.reception.door.in_flight) == (0, 0)
        assert self.reception.ledger.charges == 0
        assert not self.reception.pilots
        assert self.later.due == [], "no timer is left behind"


OpenInn = Callable[..., Inn]


@pytest.fixture
def inn() -> Iterator[OpenInn]:
    """Opens receptions, and afterwards asserts that nothing is left in any."""
    opened: list[Inn] = []

    def open_inn(workers: int = 1, seed: int = 1, **door: Any) -> Inn:
        config = ClusterConfig(
            model=ModelConfig(path="unused"),
            engine=EngineConfig(block_tokens=16, start_within_s=0.5),
            router=RouterConfig(policy="least_pending"),
            front_door=FrontDoorConfig(**door),
            pools=Pools(prefill=PoolConfig(replicas=0)),
        )
        opened.append(Inn(workers, config, seed))
        return opened[-1]

    yield open_inn
    for each in opened:
        each.validate_empty()


LONG = 4000
"""Tokens of a prompt that keeps a worker busy for as long as a test lasts, at what is assumed of workers."""


def fill(home: Inn) -> list[Reader]:
    """Every worker has something to do; from now on who comes is held."""
    return [home.ask(10 * LONG) for _ in home.seats.workers]


def test_a_request_is_answered(inn: OpenInn) -> None:
    home = inn()
    reader = home.ask()
    assert reader.begun_times == 1
    home.compute(home.worker())
    assert (reader.tokens, reader.finished, reader.ended) == ([0, 1, 2, 3], "length", True)


def test_who_is_held_is_sent_when_the_first_token_of_another_one_comes(inn: OpenInn) -> None:
    home = inn()
    (running,) = fill(home)
    held = home.ask()
    assert (held.begun_times, home.reception.door.queued) == (0, 1)
    home.compute(home.worker())
    assert running.ended
    assert held.begun_times == 1


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_followed_by_another_worker_at_once(inn: OpenInn) -> None:
    home = inn(2)
    reader = home.ask()
    first, second = sorted(home.workers(), key=lambda worker: -len(worker.submits()))
    home.refuse(first)
    assert len(second.submits()) == 1
    assert home.pilot_of(reader).record().refusals == 1


def test_a_refused_request_is_thought_cached_nowhere(inn: OpenInn) -> None:
    """Else the worker that refused it would be charged with the last token of it only."""
    home = inn()
    home.ask(1600, session="talk")
    home.refuse(home.worker(), pending=0, retry_after_s=0.1)
    home.wait(0.3)
    (charge,) = (c for account in home.reception.ledger._accounts.values() for c in account.charges)
    assert charge.tokens == 1600


def test_what_a_worker_had_of_a_refused_request_it_still_has(inn: OpenInn) -> None:
    home = inn()
    first = home.ask(1600, text=7)
    home.compute(home.worker())
    home.release(first)
    home.ask(1600, text=7)
    home.refuse(home.worker(), pending=0, retry_after_s=0.1)
    home.wait(0.3)
    (charge,) = (c for account in home.reception.ledger._accounts.values() for c in account.charges)
    assert charge.tokens == 1


def test_workers_that_refuse_for_ever_end_patience(inn: OpenInn) -> None:
    home = inn(2, queue_wait_s_max=1.0)
    reader, refusals = home.ask(), 0
    while reader.error is None and refusals < 1000:
        for worker in home.workers():
            if worker.submits():
                home.refuse(worker, retry_after_s=0.0)
                refusals += 1
        home.later.advance(0.01)
    assert isinstance(reader.error, Overloaded)
    assert refusals < 150


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_who_is_held_for_a_lost_worker_goes_to_another_one(inn: OpenInn) -> None:
    home = inn(2)
    fill(home)
    held = home.ask()
    waits_for = home.pilot_of(held).ticket.worker
    home.lose(waits_for)
    other = home.worker()
    home.compute(other)
    home.wait(1.0)
    home.compute(other)
    home.wait(1.0)
    home.compute(other)
    assert held.finished == "length"


def test_a_worker_that_joins_while_requests_are_held_takes_them(inn: OpenInn) -> None:
    home = inn(0)
    readers = [home.ask(10) for _ in range(3)]
    worker = home.join("decode-9")
    assert len(worker.submits()) == 3
    home.compute(worker)
    assert all(reader.finished for reader in readers)


def test_an_old_request_that_loses_its_worker_has_its_patience_before_it(inn: OpenInn) -> None:
    home = inn(1, queue_wait_s_max=2.0)
    reader = home.ask()
    submit = home.worker().submits()[0]
    home.reception.heard(Tokens(submit.spec.id, submit.epoch, 0, [0]))
    home.wait(60.0)
    home.lose("decode-0")
    home.wait(1.5)
    assert reader.error is None
    again = home.join("decode-0", life="2")
    home.compute(again)
    assert reader.tokens == [0, 1, 2, 3]


def test_no_worker_comes_in_time(inn: OpenInn) -> None:
    home = inn(0, queue_wait_s_max=1.0)
    reader = home.ask()
    home.wait(1.5)
    assert isinstance(reader.error, NoWorkers)


# ---- leaving ---------------------------------------------------------------------------------------------------------


def test_a_deadline_passes_while_the_request_is_held(inn: OpenInn) -> None:
    home = inn()
    fill(home)
    reader = home.ask(deadline_s=6.0)
    home.later.advance(6.5)
    assert isinstance(reader.error, DeadlineExceeded)
    assert home.reception.door.queued == 0
    assert home.worker().inbox == home.worker().submits()


def test_who_leaves_while_held_is_told_to_nobody(inn: OpenInn) -> None:
    home = inn()
    fill(home)
    home.release(home.ask())
    assert len(home.worker().inbox) == 1


def test_who_leaves_in_the_moment_in_which_it_is_sent_is_cancelled(inn: OpenInn) -> None:
    home = inn()
    fill(home)
    held = home.ask()
    home.compute(home.worker())
    assert held.begun_times == 1
    home.release(held)
    submit, cancel = home.worker().inbox
    assert isinstance(submit, Submit)
    assert cancel == Cancel(submit.spec.id, submit.epoch)


def test_who_leaves_before_its_reader_knows_that_it_was_sent_frees_its_place(inn: OpenInn) -> None:
    """The next one gets it in the same turn."""
    home = inn(in_flight_max=1)
    first, second, third = home.ask(10), home.ask(10), home.ask(10)
    home.release(first)
    home.release(second)
    assert third.begun_times == 1
    names = [type(message).__name__ for message in home.worker().inbox]
    assert names == ["Submit", "Cancel", "Submit", "Cancel", "Submit"]


def test_stopping_sends_nobody_to_a_worker(inn: OpenInn) -> None:
    """The places of those who run become free, and those who wait must not get them."""
    home = inn(in_flight_max=1)
    readers = [home.ask(10) for _ in range(4)]
    home.reception.fail_all(RequestFailed("the front door is stopping"))
    assert all(isinstance(reader.error, RequestFailed) for reader in readers)
    assert len(home.worker().submits()) == 1
    assert home.later.due == []


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_nothing_is_remembered_of_a_thousand_requests_and_workers(inn: OpenInn) -> None:
    home = inn(0)
    for number in range(300):
        worker = home.join("decode-0", life=str(number))
        for tenant in range(3):
            home.ask(10, tenant=f"t{number}-{tenant}")
        home.refuse(worker, retry_after_s=9.0)
        home.lose("decode-0")
        for reader in list(home.guests.values()):
            home.release(reader)
    door = home.reception.door
    assert len(door._closures) <= 1
    assert (door.queued, door.in_flight) == (0, 0)
    assert len(home.reception._fair) <= 3 * 300, (
        "tenants ahead of others, each for its last request"
    )


# ---- several front doors -------------------------------------------------------------------------------------------


class Engine:
    """One real queue behind the seats that several front doors have of it: 1,000 tokens a second, in order."""

    def __init__(self, seats: list[tuple[Inn, Worker]]) -> None:
        self.seats = seats
        self.queue: list[tuple[Inn, Submit, float]] = []
        self.refusals, self.pending_max = 0, 0.0

    @property
    def pending(self) -> float:
        return sum(left for _, _, left in self.queue)

    def take(self) -> None:
        """What has arrived is queued, or refused when half a second is ahead of it."""
        for home, worker in self.seats:
            for submit in worker.submits():
                if self.pending > 500:
                    self.refusals += 1
                    home.refuse_this(worker, submit, int(self.pending), self.pending / 1000)
                else:
                    worker.inbox.remove(submit)
                    self.queue.append((home, submit, float(len(submit.spec.prompt))))
                    self.pending_max = max(self.pending_max, self.pending)

    def work(self, seconds: float) -> None:
        budget = 1000 * seconds
        while self.queue and budget > 0:
            home, submit, left = self.queue.pop(0)
            if left > budget:
                self.queue.insert(0, (home, submit, left - budget))
                return
            budget -= left
            home.finish(submit)

    def report(self) -> None:
        for home, worker in self.seats:
            worker.report, worker.heard_s = load_report(int(self.pending)), home.clock.now_s()
            home.reception.reported(worker.endpoint)


def load_report(pending: int) -> LoadReport:
    return LoadReport(
        role=Role.DECODE,
        waiting=0,
        running=0,
        holding=0,
        pulling=0,
        pending_prefill_tokens=pending,
        context_tokens=0,
        blocks_total=1000,
        blocks_used=0,
        prefill_coefficients=(0.0, 0.001, 0.0),
    )


def test_three_front_doors_share_two_workers_that_refuse(inn: OpenInn) -> None:
    """Nobody is forgotten, no worker has more than it accepts or is idle, and every door gets its share."""
    homes, dice = [inn(2, seed) for seed in range(3)], random.Random(1)
    engines = [
        Engine([(home, home.seats.workers[WorkerId(f"decode-{n}")]) for home in homes])
        for n in range(2)
    ]
    readers = [[home.ask(200) for _ in range(40)] for home in homes]
    done: list[list[int]] = []
    while len(done) < 2000 and (not done or sum(done[-1]) < 120):
        for engine in engines:
            dice.shuffle(engine.seats)  # nobody's messages are always the first ones
            engine.take()
            engine.work(0.01)
            if len(done) % 10 == 0:
                engine.report()
        for home in homes:
            home.later.advance(0.01)
            home.reception.door.validate()
        done.append([sum(one.finished is not None for one in mine) for mine in readers])
    assert done[-1] == [40, 40, 40]
    assert len(done) <= 1.05 * 1200, "24,000 tokens take two workers 12 s"
    half = next(counts for counts in done if sum(counts) >= 60)
    assert max(half) <= 3 * min(half), half
    assert max(engine.pending_max for engine in engines) <= 500 + 200
    assert sum(engine.refusals for engine in engines) <= 2 * 120


# ---- evacuation ------------------------------------------------------------------------------------------------------


def test_who_cannot_leave_a_draining_worker_is_asked_again_with_its_next_report(
    inn: OpenInn,
) -> None:
    """A worker that is full refuses within a millisecond: asked at once again it would be asked a thousand times a second."""
    home = inn(2)
    home.ask()
    left, full = sorted(home.workers(), key=lambda worker: -len(worker.submits()))
    (submit,) = left.submits()
    home.reception.heard(Tokens(submit.spec.id, submit.epoch, 0, [0]))
    left.draining = True
    home.reception.reported(left.endpoint)
    (first,) = (each for each in full.inbox if isinstance(each, Adopt))
    home.reception.heard(Refused(submit.spec.id, first.epoch, "full"))
    home.later.advance(0.01)
    assert len([each for each in full.inbox if isinstance(each, Adopt)]) == 1
    home.reception.reported(left.endpoint)
    assert len([each for each in full.inbox if isinstance(each, Adopt)]) == 2
    home.finish(submit)
