"""When it is worth while to come again."""

import pytest

from tercet.router.door.departures import (
    REMEMBERED_S,
    RETRY_AFTER_S_MAX,
    RETRY_AFTER_S_MIN,
    RETRY_AFTER_S_UNKNOWN,
    Departures,
)


def test_nobody_knows_before_two_have_left() -> None:
    departures = Departures()
    departures.add(1.0)
    assert departures.retry_after_s(100, 1.0) == RETRY_AFTER_S_UNKNOWN


def test_it_is_the_queue_over_the_rate() -> None:
    departures = Departures()
    for number in range(10):
        departures.add(0.5 * number)
    assert departures.retry_after_s(0, 4.5) == pytest.approx(0.45)
    assert departures.retry_after_s(19, 4.5) == pytest.approx(9.0)


def test_a_pause_slows_the_rate() -> None:
    departures = Departures()
    for number in range(10):
        departures.add(0.5 * number)
    assert departures.retry_after_s(19, 14.5) == pytest.approx(29.0)


def test_what_was_long_ago_says_nothing() -> None:
    departures = Departures()
    for number in range(10):
        departures.add(0.5 * number)
    assert departures.retry_after_s(0, 5.0 + REMEMBERED_S) == RETRY_AFTER_S_UNKNOWN


def test_what_clients_are_told_is_bounded() -> None:
    departures = Departures()
    departures.add(0.0)
    departures.add(0.0)
    assert departures.retry_after_s(0, 0.0) == RETRY_AFTER_S_MIN
    assert departures.retry_after_s(10**9, 20.0) == RETRY_AFTER_S_MAX
