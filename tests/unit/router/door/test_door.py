"""The door by its stories: who waits, who is sent where, who is sent away and with which words."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tercet.errors import NoWorkers, Overloaded
from tercet.ids import WorkerId
from tercet.router.dispatch import Detour
from tercet.router.door import Sent
from tercet.router.door.closures import CLOSED_S_MIN, JITTER
from tercet.router.door.door import CHECK_S, PLANS_MAX

OpenHall = Callable[..., Any]


def name(ticket: Any) -> str:
    return str(ticket.id)


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_nobody_waits_while_a_worker_is_free(hall: OpenHall) -> None:
    home = hall(3, policy="least_pending")
    for _ in range(3):
        home.enter(tokens=2000)
    assert sorted(home.sent.values()) == ["w0", "w1", "w2"]
    home.enter()
    assert (home.door.queued, home.door.in_flight) == (1, 3)


def test_a_worker_is_sent_more_while_it_has_little_to_do(hall: OpenHall) -> None:
    home = hall(1, ahead_s=0.5)
    for _ in range(8):
        home.enter(tokens=200)
    assert len(home.sent) == 3, "600 ms are ahead of the fourth"
    home.clock.advance(0.1)
    home.report("w0", pending=100)
    assert len(home.sent) == 6


def test_a_first_token_lets_the_next_one_in(hall: OpenHall) -> None:
    home = hall(1)
    first, second = home.enter(tokens=2000), home.enter()
    assert name(second) not in home.sent
    home.first_token(first)
    assert home.sent[name(second)] == "w0"


def test_a_first_token_is_no_news_where_others_want_the_worker_too(hall: OpenHall) -> None:
    """They do not hear it: all wait for the report, and then all have the same chance."""
    home = hall(1)
    refused = home.enter(tokens=10)
    home.refuse(refused, retry_after_s=0.1)
    home.later(0.2)
    first, second = home.enter(tokens=2000), home.enter()
    home.first_token(first)
    assert name(second) not in home.sent
    home.report("w0")
    assert name(second) in home.sent


def test_time_alone_lets_the_next_one_in(hall: OpenHall) -> None:
    """A worker that reports seldom computes meanwhile."""
    home = hall(1)
    home.report("w0", pending=1000)
    home.enter()
    home.later(0.8, reports=False)
    assert len(home.sent) == 1


def test_it_is_looked_however_much_happens_meanwhile(hall: OpenHall) -> None:
    """Each piece of news puts off nothing: patience ends when it ends."""
    home = hall(2, patience_s=1.0)
    home.report("w0", pending=100_000)
    home.report("w1", pending=100_000)
    ticket = home.enter()
    while name(ticket) not in home.away and home.now_s < 110.0:
        home.clock.advance(0.01)
        home.report("w0", pending=100_000)
        home.report("w1", pending=100_000)
        if home.door.wake_at_s <= home.now_s:
            home.note(home.door.wake(home.now_s))
    assert home.now_s - 100.0 <= 1.0 + CHECK_S + 0.02
    assert isinstance(home.away[name(ticket)], Overloaded)


def test_what_is_predicted_when_it_is_sent_is_its_own_work_and_what_the_worker_has(
    hall: OpenHall,
) -> None:
    """And nobody who waits behind it."""
    home = hall(1)
    home.report("w0", pending=700)
    tickets = [home.enter(tokens=300) for _ in range(3)]
    home.clock.advance(0.3)
    (sent,) = home.door.news(WorkerId("w0"), home.now_s)
    assert isinstance(sent, Sent)
    assert sent.ticket is tickets[0]
    assert sent.route.predicted_ttft_s == pytest.approx(0.4 + 0.3, abs=0.002)


# ---- order -----------------------------------------------------------------------------------------------------------


def open_up(home: Any, name: str = "w0") -> None:
    """The worker has time for as many as come, one after the other."""
    for _ in range(home.door.queued):
        home.clock.advance(0.1)
        home.report(name, pending=0)


def test_priority_goes_first(hall: OpenHall) -> None:
    home = hall(1)
    home.report("w0", pending=10_000)
    low, normal, high = (home.enter(priority=p, tokens=600) for p in (-1, 0, 1))
    open_up(home)
    assert list(home.sent) == [name(high), name(normal), name(low)]


@pytest.mark.parametrize(("weights", "share"), [({}, 1 / 2), ({"b": 3.0}, 3 / 4)])
def test_tenants_get_their_shares_under_a_flood(
    hall: OpenHall, weights: dict[str, float], share: float
) -> None:
    home = hall(3, policy="least_pending", weight=lambda tenant: weights.get(tenant, 1.0))
    for number in range(3):
        home.report(f"w{number}", pending=10_000)
    tenants = {name(home.enter(tokens=600, tenant="a")): "a" for _ in range(120)}
    for number in range(3):  # the flood is well ahead in one line only
        for _ in range(9 if number == 0 else 1):
            home.clock.advance(0.1)
            home.report(f"w{number}")
    before = len(home.sent)
    tenants |= {name(home.enter(tokens=600, tenant="b")): "b" for _ in range(60)}
    for _ in range(16):
        for number in range(3):
            home.clock.advance(0.1)
            home.report(f"w{number}")
    served = Counter(tenants[each] for each in list(home.sent)[before:])
    assert served.total() == 48
    assert served["b"] / served.total() == pytest.approx(share, abs=0.1)


def test_a_flood_does_not_fill_the_queue_for_others(hall: OpenHall) -> None:
    home = hall(1, queue_max=10)
    home.report("w0", pending=100_000)
    flood = [home.enter(tenant="a") for _ in range(30)]
    other = home.enter(tenant="b")
    assert home.door.queued == 10
    assert name(other) not in home.away
    assert list(home.away)[-1] == name(flood[9]), "its last one makes room"


def test_a_queue_that_is_full_of_those_who_came_back_turns_nobody_of_them_away(
    hall: OpenHall,
) -> None:
    home = hall(1, queue_max=0, enforced=True)
    back = home.enter()
    home.refuse(back, retry_after_s=4.0)
    home.enter("in-time")
    home.enter("late", tokens=9000)
    assert (home.door.queued, set(home.away)) == (1, {"in-time", "late"})


def test_a_full_queue_turns_away_the_lowest_priority(hall: OpenHall) -> None:
    home = hall(1, queue_max=2)
    home.report("w0", pending=100_000)
    low, normal, high = (home.enter(priority=p) for p in (-1, 0, 1))
    assert list(home.away) == [name(low)]
    assert home.door.queued == 2
    assert {name(normal), name(high)}.isdisjoint(home.away)


# ---- places ----------------------------------------------------------------------------------------------------------


def test_no_more_are_sent_than_there_are_places(hall: OpenHall) -> None:
    home = hall(4, places=2, policy="least_pending")
    tickets = [home.enter(tokens=10) for _ in range(5)]
    assert (home.door.in_flight, home.door.queued) == (2, 3)
    for ticket in tickets:
        home.end(ticket)
        assert home.door.in_flight <= 2
    home.validate_empty()


def test_a_free_place_goes_to_who_has_the_first_turn_of_all_lines(hall: OpenHall) -> None:
    home = hall(4, places=1, policy="round_robin")
    first, low, high, normal = (home.enter(tokens=10, priority=p) for p in (0, -1, 1, 0))
    for expected in (high, normal, low):
        home.end(first)
        assert list(home.sent)[-1] == name(expected)
        first = expected


def test_a_place_that_a_refusal_frees_is_not_lost(hall: OpenHall) -> None:
    home = hall(2, places=1, policy="round_robin")
    refused, waiting = home.enter(), home.enter()
    assert name(waiting) not in home.sent
    home.refuse(refused, retry_after_s=5.0)
    assert name(waiting) in home.sent


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_closes_the_worker_for_everybody(hall: OpenHall) -> None:
    home = hall(1)
    refused = home.enter(tokens=10)
    home.refuse(refused, retry_after_s=2.0)
    other = home.enter(tokens=10)
    assert home.door.queued == 2
    home.later(2.0 * (1 - JITTER) - 0.01)
    assert home.door.queued == 2
    home.later(2.0 * 2 * JITTER + 0.02)
    assert list(home.sent) == [name(refused), name(other)], "it keeps its rank"


def test_a_worker_opens_on_time(hall: OpenHall) -> None:
    """Not with the next look, which may be later."""
    home = hall(1)
    refused = home.enter()
    home.refuse(refused, retry_after_s=0.04)
    home.later(0.04 * (1 + JITTER) + 0.001)
    assert (home.door.queued, home.door.in_flight) == (0, 1)


def test_a_refused_request_goes_where_it_can_begin(hall: OpenHall) -> None:
    """Although its policy knows nothing of closed workers and names the same one again."""
    home = hall(2, policy="random")
    for _ in range(20):
        refused = home.enter(tokens=10)
        worker = home.sent[name(refused)]
        home.refuse(refused, retry_after_s=8.0)
        assert home.sent[name(refused)] != worker
        home.later(10.0)
        home.end(refused)


def test_workers_that_always_refuse_are_not_asked_in_a_circle(hall: OpenHall) -> None:
    home = hall(3, policy="least_pending", patience_s=1.0)
    ticket, asked = home.enter(), 0
    while name(ticket) not in home.away:
        if ticket in home.door._sent:
            asked += 1
            home.refuse(ticket, retry_after_s=0.0)
        home.later(0.001)
    assert home.now_s - 100.0 <= 1.0 + CHECK_S + 0.01
    assert asked <= 3 * (1.3 / (CLOSED_S_MIN * (1 - JITTER)))


def test_patience_ends_also_for_who_never_waits(hall: OpenHall) -> None:
    """With enough workers that refuse there is always one to be asked next."""
    home = hall(200, policy="least_pending", patience_s=0.1)
    ticket = home.enter()
    for _ in range(150):
        if ticket in home.door._sent:
            home.clock.advance(0.001)
            home.refuse(ticket, retry_after_s=5.0)
    assert isinstance(home.away[name(ticket)], Overloaded)


def test_who_had_tokens_already_may_wait_as_long_as_at_first(hall: OpenHall) -> None:
    """Its worker dies an hour later: that hour was no waiting."""
    home = hall(1, patience_s=2.0)
    ticket = home.enter()
    home.later(3600.0)
    home.pool.workers[WorkerId("w0")].connected = False
    ticket.again(1, frozenset(), home.now_s)
    home.note(home.door.enter(ticket, home.now_s))
    home.later(1.9, reports=False)
    assert home.door.queued == 1
    home.later(0.5, reports=False)
    assert isinstance(home.away[name(ticket)], NoWorkers)


# ---- workers that come and go ----------------------------------------------------------------------------------------


def test_the_line_of_a_suspect_worker_is_planned_again(hall: OpenHall) -> None:
    home = hall(2, policy="least_pending")
    home.report("w1", pending=20_000)
    home.report("w0", pending=19_000)
    tickets = [home.enter(tokens=400) for _ in range(2)]
    for _ in range(8):
        home.clock.advance(0.25)
        home.report("w1", pending=0)
        home.note(home.door.wake(home.now_s))
    assert set(home.sent) == {name(ticket) for ticket in tickets}
    assert set(home.sent.values()) == {"w1"}


def test_the_line_of_a_lost_worker_is_planned_again_at_once(hall: OpenHall) -> None:
    home = hall(2, policy="least_pending")
    home.report("w0", pending=2000)
    home.report("w1", pending=2100)
    ticket = home.enter(tokens=50)
    assert ticket.worker == "w0"
    home.pool.part("w0")
    home.clock.advance(1.9)
    home.pool.workers[WorkerId("w1")].heard_s = home.now_s - 0.5
    home.note(home.door.lost(WorkerId("w0"), home.now_s))
    assert ticket.worker == "w1"


def test_a_worker_that_joins_gets_who_waited_for_anybody(hall: OpenHall) -> None:
    home = hall(0)
    tickets = [home.enter(tokens=10) for _ in range(3)]
    home.pool.join("w0", home.now_s)
    home.note(home.door.joined(WorkerId("w0"), home.now_s))
    assert list(home.sent) == [name(ticket) for ticket in tickets]


def test_many_who_wait_for_anybody_are_planned_in_several_looks(hall: OpenHall) -> None:
    """One plan may look at a thousand workers, and heartbeats must not wait for 256 of them."""
    home = hall(0)
    for _ in range(3 * PLANS_MAX):
        home.enter(tokens=1)
    home.pool.join("w0", home.now_s)
    home.note(home.door.joined(WorkerId("w0"), home.now_s))
    assert len(home.sent) == PLANS_MAX
    home.later(3 * CHECK_S)
    assert len(home.sent) == 3 * PLANS_MAX


def test_a_restarted_worker_is_not_closed_by_what_its_former_life_said(hall: OpenHall) -> None:
    home = hall(1)
    ticket = home.enter()
    home.refuse(ticket, retry_after_s=9.0)
    home.pool.part("w0")
    home.note(home.door.lost(WorkerId("w0"), home.now_s))
    home.sent.clear()
    home.pool.join("w0", home.now_s, life="2")
    home.note(home.door.joined(WorkerId("w0"), home.now_s))
    assert name(ticket) in home.sent


def test_without_workers_patience_ends_with_the_reason(hall: OpenHall) -> None:
    home = hall(0, patience_s=1.0)
    ticket = home.enter()
    home.later(1.0 + CHECK_S)
    error = home.away[name(ticket)]
    assert isinstance(error, NoWorkers)
    assert "no decode worker" in str(error)
    home.validate_empty()


def test_who_failed_a_request_is_left_out_of_one_plan_and_draws_it_not(hall: OpenHall) -> None:
    home = hall(2, policy="least_pending")
    home.report("w1", pending=3000)
    ticket = home.ticket(tokens=500)
    ticket.exclude = frozenset({WorkerId("w0")})
    home.note(home.door.enter(ticket, home.now_s))
    assert ticket.worker == "w1"
    home.report("w0")
    assert not home.sent


# ---- drawing ---------------------------------------------------------------------------------------------------------


def waiting_for_w0(home: Any, tokens: int = 400) -> Any:
    """A request that was planned for w0 when that had less to do than the others."""
    for other in home.pool.workers:
        home.report(other, pending=1000 if other == "w0" else 4000)
    ticket = home.enter(tokens=tokens)
    assert ticket.worker == "w0"
    return ticket


def test_an_idle_worker_draws_who_has_it_for_a_second(hall: OpenHall) -> None:
    home = hall(2, policy="min_ttft")
    ticket = waiting_for_w0(home)
    home.report("w1", pending=0)
    assert home.sent[name(ticket)] == "w1"


def test_an_idle_worker_draws_nobody_who_is_in_time_with_another_one(hall: OpenHall) -> None:
    """Its policy looked at three, so there is no pair: it stays where its policy wanted it."""
    home = hall(3, policy="min_ttft")
    ticket = waiting_for_w0(home)
    home.report("w1", pending=0)
    assert name(ticket) not in home.sent


def test_an_idle_worker_draws_who_is_late(hall: OpenHall) -> None:
    home = hall(3, policy="min_ttft", ttft_s=1.2)
    ticket = waiting_for_w0(home)
    home.report("w1", pending=0)
    assert home.sent[name(ticket)] == "w1"


def test_an_idle_worker_draws_only_who_gains(hall: OpenHall) -> None:
    """Where it waits most of its prompt is cached. It moves when it gains three times what is computed again for it."""
    home = hall(2, policy="min_ttft")
    first = home.enter(tokens=3200, prompt="long")
    worker = home.sent[name(first)]
    other = "w1" if worker == "w0" else "w0"
    home.first_token(first)
    home.report(other, pending=9000)
    home.report(worker, pending=1000)
    ticket = home.enter(tokens=3216, prompt="long")
    assert ticket.worker == worker
    home.report(other, pending=0)
    assert name(ticket) not in home.sent
    home.report(worker, pending=8000)
    home.report(other, pending=0)
    assert name(ticket) not in home.sent
    home.report(worker, pending=14_000)
    home.report(other, pending=0)
    assert home.sent[name(ticket)] == other


def test_who_is_drawn_is_said_to_be(hall: OpenHall) -> None:
    home = hall(3, policy="min_ttft", ttft_s=1.2)
    ticket = waiting_for_w0(home)
    worker = home.pool.workers[WorkerId("w1")]
    worker.report = home.report_of(0)
    (sent,) = home.door.news(WorkerId("w1"), home.now_s)
    assert sent.ticket is ticket
    assert (sent.route.choice.reason, sent.route.view.worker) == (Detour.DRAWN, "w1")
    assert sent.route.view.worker in {c.view.worker for c in sent.route.choice.candidates}


def test_of_the_late_ones_the_one_of_higher_priority_is_drawn_first(hall: OpenHall) -> None:
    home = hall(3, policy="min_ttft", ttft_s=1.2)
    for other in home.pool.workers:
        home.report(other, pending=4000)
    home.enter(tokens=600)
    high = home.enter(tokens=600, priority=1)
    home.look()
    home.report("w2", pending=0)
    assert list(home.sent) == [name(high)]


def test_late_ones_are_found_however_many_cannot_be_helped(hall: OpenHall) -> None:
    """Sixty who may not be drawn are late since longer."""
    home = hall(3, policy="least_pending", ttft_s=1.2, patience_s=1000.0)
    for other in ("w0", "w1"):
        home.report(other, pending=200_000)
    home.pool.workers[WorkerId("w2")].connected = False
    for _ in range(60):
        ticket = home.ticket(tokens=100)
        ticket.exclude = frozenset({WorkerId("w2")})
        home.note(home.door.enter(ticket, home.now_s))
    helped = home.enter(tokens=100)
    home.pool.workers[WorkerId("w2")].connected = True
    for _ in range(8):
        home.report("w2", pending=0)
    assert list(home.sent) == [name(helped)]


# ---- leaving ---------------------------------------------------------------------------------------------------------


def test_leaving_is_possible_at_any_moment_and_twice(hall: OpenHall) -> None:
    home = hall(2, policy="min_ttft")
    in_line = waiting_for_w0(home, tokens=6000)
    for other in home.pool.workers.values():
        other.connected = False
    in_lobby = home.enter()
    for ticket in (in_line, in_lobby):
        home.end(ticket)
        home.end(ticket)
    home.validate_empty()


def test_a_turn_that_is_left_costs_its_tenant_nothing(hall: OpenHall) -> None:
    home = hall(1)
    home.report("w0", pending=100_000)
    for _ in range(20):
        home.end(home.enter(tenant="a"))
    other, mine = home.enter(tenant="b"), home.enter(tenant="a")
    assert mine.rank.tag == other.rank.tag


# ---- sending away ----------------------------------------------------------------------------------------------------


def test_a_full_queue_says_when_it_will_have_moved(hall: OpenHall) -> None:
    home = hall(1, places=1, queue_max=3)
    running = home.enter(tokens=1)
    for _ in range(10):
        following = home.enter(tokens=1)
        home.clock.advance(0.5)
        home.report("w0")
        home.end(running)
        running = following
    for _ in range(3):
        home.enter(tokens=1)
    home.enter("too-many", tokens=1)
    error = home.away["too-many"]
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == pytest.approx(4 * 0.5, rel=0.15)


def test_what_nobody_can_do_in_time_is_turned_away_with_the_time_that_is_lacking(
    hall: OpenHall,
) -> None:
    home = hall(2, enforced=True, ttft_s=2.0)
    home.report("w0", pending=9000)
    home.report("w1", pending=4000)
    error = home.away[name(home.enter(tokens=500))]
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == pytest.approx(2.5)
    home.validate_empty()
    home.later(error.retry_after_s)
    assert name(home.enter(tokens=500)) not in home.away, "it was the truth"


def test_whoever_can_do_it_in_time_gets_it_whatever_the_policy_says(hall: OpenHall) -> None:
    home = hall(3, enforced=True, ttft_s=1.0, policy="round_robin")
    home.report("w0", pending=9000)
    home.report("w1", pending=9000)
    tickets = [home.enter(tokens=50) for _ in range(6)]
    assert set(home.sent.values()) == {"w2"}
    assert {name(ticket) for ticket in tickets} == set(home.sent)


def test_a_closed_worker_is_in_time_only_when_it_opens_in_time(hall: OpenHall) -> None:
    home = hall(1, enforced=True, ttft_s=1.0)
    home.refuse(home.enter(), retry_after_s=8.0)
    error = home.away[name(home.enter(tokens=100))]
    assert error.retry_after_s >= 8.0 * (1 - JITTER) - 1.0


def test_unless_it_is_enforced_a_promise_that_cannot_be_kept_sends_nobody_away(
    hall: OpenHall,
) -> None:
    home = hall(1, ttft_s=1.0)
    home.report("w0", pending=5000)
    home.enter()
    assert (home.door.queued, home.away) == (1, {})


def test_a_deadline_that_nobody_can_meet_sends_away_at_once(hall: OpenHall) -> None:
    home = hall(1)
    home.report("w0", pending=5000)
    assert isinstance(home.away[name(home.enter(deadline_s=1.0))], Overloaded)
    assert name(home.enter(deadline_s=9.0)) not in home.away


def test_who_would_slow_all_decodes_down_is_turned_away_until_enough_have_ended(
    hall: OpenHall,
) -> None:
    """20 ms between tokens are ten requests; five seconds is how long each decodes."""
    home = hall(1, enforced=True, itl_s_max=0.020)
    first = home.enter(tokens=10)
    home.first_token(first)
    home.later(5.0)
    home.end(first)
    tickets = [home.enter(tokens=10) for _ in range(10)]
    for ticket in tickets:
        home.first_token(ticket)
    home.pool.workers[WorkerId("w0")].report = home.report_of(0, running=10)
    home.later(2.0)
    error = home.away[name(home.enter(tokens=10))]
    assert isinstance(error, Overloaded)
    assert "between tokens" in str(error)
    assert error.retry_after_s == pytest.approx(3.0, rel=0.3)
    home.later(3.0)
    for ticket in tickets:
        home.end(ticket)
    home.pool.workers[WorkerId("w0")].report = home.report_of(0, running=0)
    home.later(error.retry_after_s - 3.0)
    assert name(home.enter(tokens=10)) not in home.away, "it was the truth"
