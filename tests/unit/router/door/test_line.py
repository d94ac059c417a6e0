"""Who stands where before one worker, and whose promise is kept by that."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.router.door import NEVER_S, Ticket
from tercet.router.door.line import Line, Want
from tercet.router.policy import Rank

MakeTicket = Callable[..., Ticket]
TOKEN_S = 0.001
NOW_S = 100.0


@pytest.fixture
def ticket(hall: Callable[..., Any]) -> MakeTicket:
    """A ticket that is planned, with so many tokens to compute and so long until its prefill must begin."""
    home = hall(1, ahead_s=-1.0)

    def make(
        tokens: int = 100, latest_s: float = 10.0, tag: float | None = None, **wishes: Any
    ) -> Ticket:
        made: Ticket = home.ticket(tokens=tokens, **wishes)
        made.route = home.dispatch.plan(made.ask(NOW_S), frozenset())
        made.latest_s = NOW_S + latest_s
        if tag is not None:
            made.rank = Rank(made.rank.priority, made.rank.tenant, tag, made.rank.due_s)
        return made

    return make


def stand(*tickets: Ticket, pending: int = 0) -> Line:
    line = Line()
    for each in tickets:
        line.join(each, pending, TOKEN_S, NOW_S)
    return line


def starts(line: Line, pending: int = 0) -> dict[Ticket, float]:
    """When each prefill would begin."""
    ahead, found = pending, {}
    for each in line:
        found[each] = NOW_S + ahead * TOKEN_S
        ahead += each.work_tokens
    return found


def test_equals_stand_in_the_order_in_which_they_came(ticket: MakeTicket) -> None:
    first, second, third = (ticket(latest_s=10.0 + n) for n in range(3))
    assert list(stand(first, second, third)) == [first, second, third]


def test_who_must_begin_earlier_passes_who_loses_nothing_by_it(ticket: MakeTicket) -> None:
    patient, urgent = ticket(tokens=100, latest_s=5.0), ticket(tokens=1000, latest_s=2.0)
    assert list(stand(patient, urgent)) == [urgent, patient]


def test_nobody_passes_who_would_become_late_by_it(ticket: MakeTicket) -> None:
    tight, urgent = ticket(latest_s=0.9), ticket(tokens=1000, latest_s=0.5)
    assert list(stand(tight, urgent)) == [tight, urgent]


def test_nobody_waits_for_somebody_who_is_late_anyway(ticket: MakeTicket) -> None:
    late, in_time = ticket(latest_s=NEVER_S), ticket(latest_s=1.0)
    assert list(stand(late, in_time)) == [in_time, late]
    also_late = ticket(latest_s=NEVER_S)
    assert list(stand(late, in_time, also_late)) == [in_time, late, also_late]


def test_priority_goes_first_whatever_it_costs_the_others(ticket: MakeTicket) -> None:
    tight, late_but_first = ticket(latest_s=0.0), ticket(latest_s=NEVER_S, priority=1)
    below = ticket(latest_s=0.0, priority=-1)
    assert list(stand(below, tight, late_but_first)) == [late_but_first, tight, below]


def test_a_tenant_that_had_less_goes_before_one_that_had_more(ticket: MakeTicket) -> None:
    flood = [ticket(tenant="a", tag=100.0 * n) for n in range(4)]
    other = ticket(tenant="b", tag=50.0, latest_s=NEVER_S)
    assert list(stand(*flood, other)) == [flood[0], other, *flood[1:]]


def test_who_is_back_from_a_worker_stands_before_those_who_came_later(ticket: MakeTicket) -> None:
    back, later = ticket(tag=1.0, latest_s=3.0), ticket(tag=2.0, latest_s=3.0)
    assert list(stand(later, back)) == [back, later]
    late_and_back = ticket(tag=0.0, latest_s=NEVER_S)
    assert list(stand(later, back, late_and_back)) == [back, later, late_and_back]


def test_a_place_says_how_much_is_computed_before_it(ticket: MakeTicket) -> None:
    line = stand(ticket(tokens=300, latest_s=1.0), ticket(tokens=200, latest_s=9.0))
    between = Want(Rank(), 400, NOW_S + 5.0)
    assert line.place(between, 0, TOKEN_S, NOW_S) == (1, 300)
    assert line.place(Want(Rank(priority=1), 400, NEVER_S), 0, TOKEN_S, NOW_S) == (0, 0)
    assert line.tokens == 500


def test_what_the_worker_has_still_to_do_counts_for_the_promises(ticket: MakeTicket) -> None:
    """Behind 4 s of other work the first one would not be in time after another second."""
    first, urgent = ticket(latest_s=4.5), ticket(tokens=1000, latest_s=4.2)
    assert list(stand(first, urgent, pending=0)) == [urgent, first]
    assert list(stand(first, urgent, pending=4000)) == [first, urgent]


def test_leaving_gives_the_tokens_back(ticket: MakeTicket) -> None:
    first, second = ticket(tokens=300), ticket(tokens=200)
    line = stand(first, second)
    assert line.tokens_before(second) == 300
    line.leave(first)
    assert (list(line), line.tokens, line.tokens_before(second)) == ([second], 200, 0)


WISHES = st.lists(st.tuples(st.integers(1, 2000), st.floats(0.0, 6.0)), min_size=1, max_size=10)


@settings(max_examples=100, deadline=None)
@given(wishes=WISHES, pending=st.integers(0, 1000))
def test_nobody_who_was_in_time_becomes_late_by_an_equal(
    wishes: list[tuple[int, float]], pending: int, hall: Callable[..., Any]
) -> None:
    home = hall(1)
    line = Line()
    for tokens, latest_s in wishes:
        made = home.ticket(tokens=tokens)
        made.route = home.dispatch.plan(made.ask(NOW_S), frozenset())
        made.latest_s = NOW_S + latest_s
        before = starts(line, pending)
        line.join(made, pending, TOKEN_S, NOW_S)
        after = starts(line, pending)
        for other, start_s in before.items():
            if start_s <= other.latest_s:
                assert after[other] <= other.latest_s + 1e-9
