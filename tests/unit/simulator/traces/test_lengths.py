"""Distributions say what comes out of them."""

import random

import msgspec
import pytest

from tercet.simulator.traces.lengths import Empirical, Fixed, Lengths, Lognormal, Mixture


def drawn(lengths: Lengths, count: int = 20_000) -> list[int]:
    draw = lengths.drawing(random.Random(1))
    return sorted(draw() for _ in range(count))


def test_a_lognormal_meets_the_quantiles_it_is_given_by() -> None:
    values = drawn(Lognormal(p50=300, p99=3000, max=5000))
    assert values[10_000] == pytest.approx(300, rel=0.05)
    assert values[19_800] == pytest.approx(3000, rel=0.15)
    assert values[-1] == 5000


def test_values_come_as_often_as_they_weigh() -> None:
    values = drawn(Empirical([7, 9, 11], [3, 1, 0]))
    assert values.count(7) == pytest.approx(15_000, rel=0.03)
    assert 11 not in values


def test_reasoning_has_two_hills() -> None:
    values = drawn(Mixture([Fixed(100), Lognormal(p50=4000, p99=8000)], [0.7, 0.3]))
    assert values.count(100) == pytest.approx(14_000, rel=0.03)
    assert not [value for value in values if 100 < value < 1000]


@pytest.mark.parametrize(
    "text", ["is: empirical\nvalues: [1, 2]\nweights: [1]", "is: mixture\nparts: []\nweights: []"]
)
def test_weights_must_fit(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.yaml.decode(text, type=Lengths)
