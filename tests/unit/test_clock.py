import time

import pytest

from tercet.clock import Clock, ManualClock, MonotonicClock, unix_time_s


def test_the_manual_clock_moves_only_when_told() -> None:
    clock: Clock = ManualClock(start_s=5.0)
    assert clock.now_s() == 5.0
    assert clock.now_s() == 5.0
    assert isinstance(clock, ManualClock)
    clock.advance(2.5)
    assert clock.now_s() == 7.5


def test_the_manual_clock_refuses_to_run_backwards() -> None:
    with pytest.raises(AssertionError, match="backwards"):
        ManualClock().advance(-0.1)


def test_the_monotonic_clock_never_falls_and_does_advance() -> None:
    clock = MonotonicClock()
    readings = [clock.now_s() for _ in range(1000)]
    assert readings == sorted(readings)
    before = clock.now_s()
    time.sleep(0.002)
    assert clock.now_s() - before >= 0.002


def test_unix_time_is_whole_seconds_of_today() -> None:
    assert abs(unix_time_s() - time.time()) <= 1.0
    assert isinstance(unix_time_s(), int)
