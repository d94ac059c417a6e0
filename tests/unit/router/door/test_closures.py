"""Workers that have said that they take nothing."""

import random

from tercet.ids import WorkerId
from tercet.router.door.closures import CLOSED_S_MAX, CLOSED_S_MIN, CONTESTED_S, JITTER, Closures
from tercet.router.door.ticket import NEVER_S

W0, W1 = WorkerId("w0"), WorkerId("w1")


def closures() -> Closures:
    return Closures(random.Random(1))


def test_a_worker_stays_closed_for_about_as_long_as_it_said() -> None:
    closed = closures()
    closed.close(W0, 2.0, 10.0)
    assert 2.0 * (1 - JITTER) <= closed.left_s(W0, 10.0) <= 2.0 * (1 + JITTER)
    assert closed.left_s(W0, 13.0) == closed.left_s(W1, 10.0) == 0


def test_not_everybody_comes_back_in_the_same_moment() -> None:
    closed = closures()
    for number in range(100):
        closed.close(WorkerId(f"w{number}"), 1.0, 0.0)
    times = [closed.left_s(WorkerId(f"w{number}"), 0.0) for number in range(100)]
    assert max(times) - min(times) > JITTER
    assert len(set(times)) > 50


def test_no_worker_is_asked_in_a_circle_and_none_is_left_out_for_ever() -> None:
    closed = closures()
    closed.close(W0, 0.0, 0.0)
    closed.close(W1, 1e9, 0.0)
    assert closed.left_s(W0, 0.0) >= CLOSED_S_MIN * (1 - JITTER)
    assert closed.left_s(W1, 0.0) <= CLOSED_S_MAX * (1 + JITTER)


def test_it_tells_once_who_has_opened_and_when_to_ask_again() -> None:
    closed = closures()
    assert (closed.next_s, closed.opened(100.0)) == (NEVER_S, [])
    closed.close(W0, 1.0, 0.0)
    closed.close(W1, 4.0, 0.0)
    assert closed.next_s == closed.left_s(W0, 0.0)
    assert closed.opened(closed.next_s) == [W0]
    assert closed.next_s == closed.left_s(W1, 0.0)
    assert closed.opened(10.0) == [W1]
    assert (closed.next_s, len(closed)) == (NEVER_S, 0)


def test_a_new_life_is_open() -> None:
    closed = closures()
    closed.close(W0, 9.0, 0.0)
    closed.open(W0)
    assert closed.left_s(W0, 0.0) == 0


def test_a_worker_that_refused_of_late_is_contested() -> None:
    closed = closures()
    closed.close(W0, 0.1, 0.0)
    closed.opened(1.0)
    assert closed.is_contested(W0, 1.0)
    assert not closed.is_contested(W1, 1.0)
    assert not closed.is_contested(W0, CONTESTED_S)
    closed.close(W0, 0.1, 10.0)
    closed.open(W0)
    assert not closed.is_contested(W0, 10.0), "its former life refused"
