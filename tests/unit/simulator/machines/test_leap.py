"""The closed form against the sum."""

import random
from itertools import accumulate

import pytest

from tercet.simulator.leap import Leap


@pytest.mark.parametrize("growth_s", [0.0, 1e-12, 3e-6, 0.01])
def test_a_step_is_over_when_the_sum_says_so(growth_s: float) -> None:
    dice = random.Random(1)
    for _ in range(200):
        leap = Leap(dice.uniform(0, 1e4), dice.uniform(1e-3, 0.1), growth_s, dice.randint(1, 400))
        durations = (leap.first_s + step * growth_s for step in range(leap.steps))
        ends = list(accumulate(durations, initial=leap.start_s))
        assert leap.end_s(leap.steps) == pytest.approx(ends[-1])
        for steps, end_s in enumerate(ends):
            assert leap.whole(leap.end_s(steps)) == steps
            if steps < leap.steps:
                assert leap.whole(end_s + 0.5 * leap.step_s(steps)) == steps


def test_a_leap_has_no_more_steps_than_it_has() -> None:
    assert Leap(0.0, 0.1, 0.0, 3).whole(100.0) == 3
