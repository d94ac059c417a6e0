"""Rates and burstiness come out as they went in."""

import random
from itertools import pairwise

import pytest

from tercet.simulator.traces.renewal import (
    GammaGaps,
    Gaps,
    Period,
    WeibullGaps,
    arrival_times,
)


def mean_and_cv(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5 / mean


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("kind", [GammaGaps, WeibullGaps])
def test_gaps_have_the_wanted_rate_and_variation(
    kind: type[GammaGaps] | type[WeibullGaps], cv: float
) -> None:
    times = list(arrival_times([Period(0, 20_000, 5, kind.of_cv(cv))], random.Random(1)))
    mean, found = mean_and_cv([b - a for a, b in pairwise(times)])
    assert 1 / mean == pytest.approx(5, rel=0.05)
    assert found == pytest.approx(cv, rel=0.1)


@pytest.mark.parametrize("gaps", [GammaGaps.of_cv(4), WeibullGaps.of_cv(4), GammaGaps.of_cv(0.3)])
def test_short_stretches_of_bursty_clients_are_not_biased(gaps: Gaps) -> None:
    """Many clients watched for a moment: a process that began with a whole gap, or with an arrival, would miss the rate."""
    dice = random.Random(2)
    count = sum(len(list(arrival_times([Period(0, 1, 1, gaps)], dice))) for _ in range(20_000))
    assert count / 20_000 == pytest.approx(1, rel=0.1)


def test_the_rate_changes_at_once_and_silence_stays_silent() -> None:
    gaps = GammaGaps.of_cv(1)
    periods = [Period(0, 100, 20, gaps), Period(100, 200, 0, gaps), Period(200, 300, 60, gaps)]
    times = list(arrival_times(periods, random.Random(3)))
    assert times == sorted(times)
    assert len([t for t in times if t < 100]) == pytest.approx(2000, rel=0.1)
    assert not [t for t in times if 100 <= t < 200]
    assert len([t for t in times if 200 <= t < 300]) == pytest.approx(6000, rel=0.1)
