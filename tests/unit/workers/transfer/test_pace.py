"""The thread looks again at once while bytes move, and leaves the processor to others when they do not."""

from tercet.workers.transfer.pace import (
    ACTIVE_PAUSE_S,
    EAGER_LOOKS,
    IDLE_PAUSE_S,
    MOVED_CPU_S,
    PAUSE_S_MIN,
    WATCHFUL_PAUSE_S,
    Pace,
)


def pauses(pace: Pace, looks: int, *, reading: bool = False, watchful: bool = False) -> list[float]:
    found = []
    for _ in range(looks):
        pace.looked(0.0)
        found.append(pace.next_pause_s(reading=reading, watchful=watchful))
    return found


def test_while_bytes_move_there_is_no_pause():
    pace = Pace()
    pace.looked(2 * MOVED_CPU_S)
    assert pace.next_pause_s(reading=False, watchful=True) == 0


def test_pauses_grow_from_the_last_movement_to_what_may_be_waited_for():
    pace = Pace()
    pace.looked(2 * MOVED_CPU_S)
    grown = pauses(pace, 12, watchful=True)
    assert grown[:3] == [PAUSE_S_MIN, 2 * PAUSE_S_MIN, 4 * PAUSE_S_MIN]
    assert grown[-1] == WATCHFUL_PAUSE_S


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
