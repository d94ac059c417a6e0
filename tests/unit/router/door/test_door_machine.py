"""Whatever happens in whatever order: everybody leaves exactly once, and nothing is left of anybody."""

from collections.abc import Callable
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from tercet.router.door import NEVER_S, Sent, Verdict

OpenHall = Callable[..., Any]
POLICIES = ("min_ttft", "dualmap", "round_robin", "least_pending")
WORKERS = 4


class Crowd(RuleBasedStateMachine):
    """Requests, workers and time, at the whim of Hypothesis."""

    open_hall: OpenHall

    @initialize(
        policy=st.sampled_from(POLICIES),
        places=st.integers(1, 6),
        queue_max=st.integers(0, 8),
        enforced=st.booleans(),
    )
    def open(self, policy: str, places: int, queue_max: int, enforced: bool) -> None:
        self.hall = self.open_hall(
            2, policy=policy, places=places, queue_max=queue_max, enforced=enforced, patience_s=3.0
        )
        self.here: dict[Any, str] = {}
        """Who has come and not left: waiting or sent."""
        self.lives = 1

    def _note(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            assert self.here[verdict.ticket] == "waiting", "it leaves once"
            if isinstance(verdict, Sent):
                self.here[verdict.ticket] = "sent"
                worker = verdict.route.view.worker
                assert self.hall.pool.workers[worker].usable
                self.hall.sent[str(verdict.ticket.id)] = worker
            else:
                assert verdict.error.retry_after_s > 0
                del self.here[verdict.ticket]
                verdict.ticket.errand.slot.__exit__(None, None, None)

    def _some(self, state: str, luck: int) -> Any:
        found = [ticket for ticket, its in self.here.items() if its == state]
        return found[luck % len(found)] if found else None

    def _worker(self, luck: int) -> Any:
        workers = list(self.hall.pool.workers.values())
        return workers[luck % len(workers)] if workers else None

    # ---- requests ----------------------------------------------------------------------------------------------------

    @rule(
        tokens=st.sampled_from((1, 50, 400, 3000)),
        tenant=st.sampled_from("ab"),
        priority=st.sampled_from((0, 0, 0, 1)),
        deadline_s=st.sampled_from((NEVER_S, NEVER_S, 1.0)),
        prompt=st.sampled_from(("", "", "shared")),
    )
    def enter(self, **wishes: Any) -> None:
        ticket = self.hall.ticket(**wishes)
        self.here[ticket] = "waiting"
        self._note(self.hall.door.enter(ticket, self.hall.now_s))

    @rule(luck=st.integers(0, 100), retry_after_s=st.sampled_from((0.0, 0.3, 9.0)))
    def refuse(self, luck: int, retry_after_s: float) -> None:
        if ticket := self._some("sent", luck):
            worker = self.hall.pool.workers.get(self.hall.sent[str(ticket.id)])
            if worker is not None:
                ticket.errand.slot.strike(worker.endpoint)
                self.hall.door.refused(worker.endpoint.worker, retry_after_s, self.hall.now_s)
            self.here[ticket] = "waiting"
            self._note(self.hall.door.enter(ticket, self.hall.now_s))

    @rule(luck=st.integers(0, 100), state=st.sampled_from(("waiting", "sent")))
    def end(self, luck: int, state: str) -> None:
        if ticket := self._some(state, luck):
            del self.here[ticket]
            ticket.errand.slot.__exit__(None, None, None)
            self._note(self.hall.door.done(ticket, self.hall.now_s))
            assert self.hall.door.done(ticket, self.hall.now_s) == []

    # ---- workers -----------------------------------------------------------------------------------------------------

    @rule(luck=st.integers(0, 100), pending=st.sampled_from((0, 0, 300, 4000)))
    def report(self, luck: int, pending: int) -> None:
        if worker := self._worker(luck):
            worker.report, worker.heard_s = self.hall.report_of(pending), self.hall.now_s
            self.hall.ledger.reconcile(worker.endpoint, self.hall.now_s)
            self._note(self.hall.door.news(worker.endpoint.worker, self.hall.now_s))

    @rule()
    def join(self) -> None:
        number = next(n for n in range(WORKERS + 1) if f"w{n}" not in self.hall.pool.workers)
        if number < WORKERS:
            self.lives += 1
            worker = self.hall.pool.join(f"w{number}", self.hall.now_s, life=str(self.lives))
            self._note(self.hall.door.joined(worker.endpoint.worker, self.hall.now_s))

    @rule(luck=st.integers(0, 100))
    def lose(self, luck: int) -> None:
        if worker := self._worker(luck):
            name = worker.endpoint.worker
            self.hall.pool.part(name)
            self.hall.ledger.forget(worker.endpoint)
            for ticket, state in list(self.here.items()):
                if state == "sent" and self.hall.sent[str(ticket.id)] == name:
                    ticket.errand.slot.strike(worker.endpoint)
                    self.here[ticket] = "waiting"
                    ticket.again(luck % 2, frozenset(), self.hall.now_s)
                    self._note(self.hall.door.enter(ticket, self.hall.now_s))
            self._note(self.hall.door.lost(name, self.hall.now_s))

    # ---- time --------------------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from((0.0, 0.01, 0.2, 1.5)))
    def wait(self, seconds: float) -> None:
        until_s = self.hall.now_s + seconds
        while (wake_s := self.hall.door.wake_at_s) <= until_s:
            self.hall.clock.advance(max(0.0, wake_s - self.hall.now_s))
            self._note(self.hall.door.wake(self.hall.now_s))
            assert self.hall.door.wake_at_s > wake_s or not self.hall.door.queued, "it would spin"
        self.hall.clock.advance(max(0.0, until_s - self.hall.now_s))

    @invariant()
    def everybody_is_where_they_are_thought_to_be(self) -> None:
        if hasattr(self, "hall"):
            states = list(self.here.values())
            door = self.hall.door
            door.validate()
            self.hall.ledger.validate()
            assert (door.queued, door.in_flight) == (states.count("waiting"), states.count("sent"))

    def teardown(self) -> None:
        if not hasattr(self, "hall"):
            return
        self.wait(10.0)
        assert "waiting" not in self.here.values(), "patience has ended for all"
        for ticket in list(self.here):
            self.end(0, "sent")
            assert ticket not in self.here
        self.hall.validate_empty()
        assert not any(account.requests for account in self.hall.fair._accounts.values())


def test_everybody_leaves_once_and_nothing_is_left(hall: OpenHall) -> None:
    class Opened(Crowd):
        open_hall = staticmethod(hall)

    run_state_machine_as_test(
        Opened, settings=settings(max_examples=100, stateful_step_count=40, deadline=None)
    )
