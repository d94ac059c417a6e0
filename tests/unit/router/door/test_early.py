"""Early rejection: the load of then and not of now, and what it is good for."""

import random
from dataclasses import dataclass
from statistics import mean, pstdev
from typing import NamedTuple

import pytest

from tercet.ids import RequestId
from tercet.role import Role
from tercet.router.door.early import DecodeLoad, Durations, Early, Ours
from tercet.wire import LoadReport

NOW_S = 100.0


@dataclass
class Stay:
    request: RequestId
    expected_s: float
    first_s: float | None = None


def report(running: int, coefficients: tuple[float, float, float], waiting: int = 0) -> LoadReport:
    return LoadReport(
        role=Role.DECODE,
        waiting=waiting,
        running=running,
        holding=0,
        pulling=0,
        pending_prefill_tokens=0,
        context_tokens=100 * running,
        blocks_total=1000,
        blocks_used=0,
        decode_coefficients=coefficients,
    )


STEP = (0.010, 0.001, 0.0)
"""10 ms and another one for each request: 40 of them keep 50 ms."""


def load(running: int, workers: int = 1) -> DecodeLoad:
    return DecodeLoad.of([report(running, STEP) for _ in range(workers)], ())


def expected(*times_s: float) -> list[Stay]:
    return [Stay(RequestId("r"), expected_s) for expected_s in times_s]


def decoding(*ages_s: float) -> list[Stay]:
    return [Stay(RequestId("r"), 0.0, NOW_S - age_s) for age_s in ages_s]


def early(*durations_s: float) -> Early:
    made = Early(0.050)
    for seconds in durations_s:
        made.durations.add(seconds)
    return made


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_a_step_takes_what_the_reports_say_in_the_mean() -> None:
    both = DecodeLoad.of(
        [
            report(3, (0.01, 0.001, 1e-6)),
            report(1, (0.03, 0.003, 3e-6)),
            report(9, (0.0, 0.0, 0.0)),
        ],
        [report(2, STEP, waiting=4)],
    )
    assert (both.workers, both.requests, both.context_tokens) == (2, 10, 100)
    assert both.itl_s(8) == pytest.approx(0.02 + 4 * 0.002 + 400 * 2e-6)


def test_who_ends_before_does_not_count() -> None:
    ours = Ours(decoding(9.0, 9.0, 1.0), [])
    assert early(10.0, 10.0).requests_at(NOW_S + 5.0, load(3), ours, NOW_S) == 1


def test_who_begins_before_counts_and_who_begins_after_does_not() -> None:
    held = Ours([], expected(NOW_S + 1.0, NOW_S + 4.0, NOW_S + 6.0))
    assert early(10.0).requests_at(NOW_S + 5.0, load(0), held, NOW_S) == 2
    sent = Ours(expected(NOW_S + 1.0, NOW_S + 6.0), [])
    assert early(10.0).requests_at(NOW_S + 5.0, load(2), sent, NOW_S) == 1


def test_who_is_in_the_reports_and_not_ours_is_counted_too() -> None:
    ours = Ours(decoding(0.0), expected(NOW_S))
    counted = early().requests_at(NOW_S, load(30), ours, NOW_S)
    assert counted == 31, "29 of another door, ours, and one that is held"


def test_nobody_is_thought_to_end_before_anybody_has() -> None:
    assert early().requests_at(NOW_S + 1e6, load(30), Ours(decoding(5.0), []), NOW_S) == 30


def test_long_requests_are_thought_to_stay_as_long_as_long_ones_do() -> None:
    durations = Durations()
    for seconds in (1.0, 1.0, 1.0, 100.0):
        durations.add(seconds)
    assert durations.staying([0.0], 50.0) == pytest.approx(1 / 4)
    assert durations.staying([2.0], 50.0) == 1
    assert 0 < durations.staying([500.0], 50.0) < 1, "longer than anybody before"
    assert durations.staying([-49.5], 50.0) == 1, "it will have begun just then"


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_a_load_that_will_be_gone_turns_nobody_away() -> None:
    many = Ours(decoding(*[9.0] * 60), [])
    assert early(10.0).objection(NOW_S + 0.5, load(60), many, NOW_S) is not None
    assert early(10.0).objection(NOW_S + 2.0, load(60), many, NOW_S) is None


def test_a_load_that_is_on_its_way_turns_away_although_nobody_decodes_yet() -> None:
    held = Ours([], expected(*[NOW_S + 0.1 * n for n in range(60)]))
    assert early(10.0).objection(NOW_S + 6.0, load(0), held, NOW_S) is not None


def test_the_time_to_come_again_is_when_there_is_room() -> None:
    ours = Ours(decoding(*[10.0 - 0.1 * n for n in range(60)]), [])
    error = early(10.0).objection(NOW_S, load(60), ours, NOW_S)
    assert error is not None
    assert 2.0 <= error.retry_after_s <= 2.0 * 1.25 * 1.25, "20 of the 60 end within 2 s"


def test_nobody_is_turned_away_where_somebody_would_be_idle() -> None:
    slow = DecodeLoad.of([report(0, (0.2, 0.0, 0.0)) for _ in range(2)], ())
    assert early().objection(NOW_S, slow, Ours(decoding(1.0), []), NOW_S) is None


def test_without_a_fit_nobody_is_turned_away() -> None:
    unknown = DecodeLoad.of([report(500, (0.0, 0.0, 0.0))], ())
    assert early().objection(NOW_S, unknown, Ours([], []), NOW_S) is None


# ---- what it is good for ---------------------------------------------------------------------------------------------


class Swing(NamedTuple):
    """Of the decode load after the first minute."""

    mean: float
    deviation: float
    late_share: float
    """Of the time with a tenth more than 50 ms between tokens."""


def run(*, ahead: bool, prefill_s: float, seed: int = 1) -> Swing:
    """Twice as many requests as two workers can decode in time; each decodes 15 to 25 s after its prefill.

    The prompt takes `prefill_s` from the door to the first token, all of them the same.
    """
    dice, tick_s, rule = random.Random(seed), 0.1, Early(0.050)
    ends: dict[int, float] = {}
    stays: dict[int, Stay] = {}
    loads: list[int] = []
    for step in range(int(180 / tick_s)):
        now_s = step * tick_s
        for name in [name for name, end_s in ends.items() if end_s <= now_s]:
            rule.durations.add(now_s - (stays[name].first_s or 0.0))
            del ends[name], stays[name]
        for name, stay in stays.items():
            if stay.first_s is None and stay.expected_s <= now_s:
                stay.first_s = now_s
                ends[name] = now_s + dice.uniform(15.0, 25.0)
        visible = stays if ahead else {name: stays[name] for name in ends}
        at_s = now_s + prefill_s if ahead else now_s
        ours = Ours(list(visible.values()), [])
        if rule.objection(at_s, load(len(ends) // 2, 2), ours, now_s) is None:
            stays[step] = Stay(RequestId("r"), now_s + prefill_s)
        loads.append(len(ends))
    late = loads[int(60 / tick_s) :]
    return Swing(mean(late), pstdev(late), sum(n > 2 * 45 for n in late) / len(late))


def test_the_load_of_now_swings_and_the_load_to_come_does_not() -> None:
    """Two workers keep the promise with 80 requests."""
    now, ahead = run(ahead=False, prefill_s=8.0), run(ahead=True, prefill_s=8.0)
    assert now.deviation > 25
    assert now.late_share > 0.3
    assert ahead.deviation < 5
    assert ahead.late_share == 0
    assert ahead.mean > 0.95 * 80, "and it does not get there by refusing too many"


def test_where_prefills_take_no_time_both_are_the_same() -> None:
    now, ahead = run(ahead=False, prefill_s=0.1), run(ahead=True, prefill_s=0.1)
    assert abs(now.mean - ahead.mean) < 5
    assert max(now.deviation, ahead.deviation) < 5
