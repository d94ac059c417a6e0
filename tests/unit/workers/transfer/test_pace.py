"""The thread looks again at once while bytes move, and leaves the processor to others when they do not."""

from tercet.workers.transfer.pace import (
    ACTIVE_PAUSE_S,
    EAGER_LOOKS,
    IDLE_PAUSE_S,
    MOVED_CPU_S,
    MOVED_FACTOR,
    PAUSE_S_MIN,
    WATCHFUL_PAUSE_S,
    Pace,
)

QUIET_CPU_S = 3e-6


def pauses(
    pace: Pace,
    looks: int,
    *,
    reading: bool = False,
    watchful: bool = False,
    cpu_s: float = QUIET_CPU_S,
) -> list[float]:
    found = []
    for _ in range(looks):
        pace.looked(cpu_s)
        found.append(pace.next_pause_s(reading=reading, watchful=watchful))
    return found


def test_while_bytes_move_there_is_no_pause():
    assert pauses(Pace(), 50, watchful=True, cpu_s=2 * MOVED_CPU_S) == [0.0] * 50


def test_pauses_grow_from_the_last_movement_to_what_may_be_waited_for():
    pace = Pace()
    pauses(pace, 1, watchful=True, cpu_s=2 * MOVED_CPU_S)
    grown = pauses(pace, 12, watchful=True)
    assert grown[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert grown[-1] == WATCHFUL_PAUSE_S


def test_a_thread_that_nobody_needs_sleeps_whatever_its_looks_cost():
    assert pauses(Pace(), 50, cpu_s=10 * MOVED_CPU_S) == [IDLE_PAUSE_S] * 50


def test_where_quiet_looks_are_costly_only_costlier_ones_are_movement():
    pace = Pace()
    pauses(pace, 200, cpu_s=MOVED_CPU_S)
    assert pauses(pace, 1, watchful=True, cpu_s=1.1 * MOVED_CPU_S)[0] > 0
    assert pauses(pace, 1, watchful=True, cpu_s=2 * MOVED_FACTOR * MOVED_CPU_S) == [0.0]


def test_a_read_of_ours_shortens_a_long_pause_at_once():
    pace = Pace()
    assert pauses(pace, 12)[-1] == IDLE_PAUSE_S
    assert pauses(pace, 1, reading=True) == [ACTIVE_PAUSE_S]


def test_what_was_just_asked_for_is_looked_for_soon():
    pace = Pace()
    pauses(pace, 12)
    pace.expect()
    found = pauses(pace, EAGER_LOOKS + 2, reading=True)
    assert found == [0.0] * EAGER_LOOKS + [PAUSE_S_MIN, 2 * PAUSE_S_MIN]
