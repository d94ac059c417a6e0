"""Histograms of gaps, made of what lies between two marks in a journal of steps."""

import pytest

from tercet.ids import RequestId
from tercet.simulator.stretches import BIN_RATIO, Gaps, StepTimes, Stretch, bin_of, middle_s

A = RequestId("a")
HALF_A_BIN = (BIN_RATIO - 1) / 2 + 1e-3


@pytest.mark.parametrize("seconds", [1e-5, 0.00731, 0.03, 1.7, 900.0])
def test_a_bin_is_known_to_one_percent(seconds: float) -> None:
    assert middle_s(bin_of(seconds)) == pytest.approx(seconds, rel=HALF_A_BIN)


def test_steps_that_grow_fall_into_the_bins_they_would_fall_into_one_by_one() -> None:
    together, alone = StepTimes(), StepTimes()
    mark = together.mark()
    together.add(0.0105, 0.00013, 700)
    for step in range(700):
        alone.add(0.0105 + step * 0.00013, 0.0, 1)
    assert together.since(mark) == alone.since(mark)


def test_what_lies_between_two_stretches_is_a_gap() -> None:
    gaps = Gaps()
    gaps.add(Stretch(A, 1.0, 1.0, {}))
    gaps.add(Stretch(A, 1.5, 1.6, {bin_of(0.05): 2}))
    assert gaps.total == 3
    assert gaps.quantile_s(0.5) == pytest.approx(0.05, rel=HALF_A_BIN)
    assert gaps.longest_s() == pytest.approx(0.5, rel=HALF_A_BIN)


def test_one_token_has_no_gaps() -> None:
    gaps = Gaps()
    gaps.add(Stretch(A, 1.0, 1.0, {}))
    assert gaps.quantile_s(0.5) is None
    assert gaps.longest_s() is None


def test_only_what_came_since_a_mark_counts() -> None:
    times = StepTimes()
    times.add(0.02, 0.0, 5)
    mark = times.mark()
    times.add(0.02, 0.0, 2)
    times.add(0.4, 0.0, 1)
    assert times.since(mark) == {bin_of(0.02): 2, bin_of(0.4): 1}


def test_marks_that_are_still_wanted_survive_what_is_forgotten() -> None:
    times, marks = StepTimes(), []
    for step in range(100):
        marks.append(times.mark())
        times.add(0.02 * 2**step, 0.0, step + 1)
        oldest = max(0, step - 3)
        times.forget(marks[oldest])
        assert list(times.since(marks[oldest]).values()) == [*range(oldest + 1, step + 2)]
