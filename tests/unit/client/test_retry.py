import random

import pytest

from tercet.client.retry import Attempts, RetryPolicy
from tercet.clock import ManualClock
from tercet.errors import InvalidRequest, NoWorkers, Overloaded, RequestFailed, Unavailable

POLICY = RetryPolicy(attempts_max=4, first_s=0.1, longest_s=0.3)
SOON = Unavailable("no answer", 0.0)


def test_delays_double_up_to_the_longest() -> None:
    delays = [POLICY.delay_s(attempt, SOON, None, 0.0) for attempt in (1, 2, 3, 4)]
    assert delays == [0.1, 0.2, 0.3, None]


def test_chance_shortens_a_delay_by_at_most_half() -> None:
    assert POLICY.delay_s(1, SOON, None, 1.0) == pytest.approx(0.05)


def test_the_server_is_not_asked_sooner_than_it_wants() -> None:
    assert POLICY.delay_s(1, Overloaded("full", 2.0), None, 0.5) == 2.0


def test_no_delay_goes_past_the_deadline() -> None:
    assert POLICY.delay_s(1, Overloaded("full", 2.0), 1.9, 0.0) is None
    assert POLICY.delay_s(1, Overloaded("full", 2.0), 2.1, 0.0) == 2.0


def test_the_time_is_shared_by_all_attempts() -> None:
    clock = ManualClock()
    attempts = Attempts(POLICY, 1.0, clock, random.Random(0))
    clock.advance(0.4)
    assert attempts.left_s == pytest.approx(0.6)
    assert attempts.delay_s(NoWorkers("none", 0.5)) == 0.5
    clock.advance(0.5)
    assert attempts.delay_s(NoWorkers("none", 0.5)) is None


def test_attempts_are_counted() -> None:
    attempts = Attempts(POLICY, None, ManualClock(), random.Random(0))
    delays = [attempts.delay_s(SOON) for _ in range(4)]
    assert [delay is None for delay in delays] == [False, False, False, True]


@pytest.mark.parametrize("error", [InvalidRequest("n", "is wrong"), RequestFailed("spent")])
def test_what_does_not_pass_is_not_tried_again(error: Exception) -> None:
    attempts = Attempts(POLICY, None, ManualClock(), random.Random(0))
    assert attempts.delay_s(error) is None  # type: ignore[arg-type]
