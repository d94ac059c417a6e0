"""The predicted peak against a plain simulation of the future, and predictions against the outputs they come from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.workers.foresight import WINDOW, Growth, OutputLengths, peak

growths = st.lists(st.builds(Growth, st.integers(0, 50), st.integers(0, 50)), max_size=12)
lengths = st.lists(st.integers(1, 200), min_size=1, max_size=2 * WINDOW)
shares = st.floats(0, 1, exclude_max=True)


def lived_through(batch: list[Growth]) -> int:
    """Round by round: everybody who is not done takes a block, and then those leave who have all they want."""
    alive = [[growth.held, growth.more] for growth in batch]
    most = sum(held for held, _ in alive)
    alive = [request for request in alive if request[1]]
    while alive:
        for request in alive:
            request[0] += 1
            request[1] -= 1
        most = max(most, sum(held for held, _ in alive))
        alive = [request for request in alive if request[1]]
    return most


@given(growths)
def test_the_peak_is_that_of_living_through_it(batch: list[Growth]) -> None:
    assert peak(batch) == lived_through(batch)


@given(growths, st.builds(Growth, st.integers(0, 50), st.integers(0, 50)))
def test_one_more_request_never_needs_less(batch: list[Growth], newcomer: Growth) -> None:
    assert peak([*batch, newcomer]) >= peak(batch)


def test_two_that_end_at_different_times_need_less_than_the_sum_of_their_ends() -> None:
    assert peak([Growth(10, 10), Growth(10, 2)]) == 24
    assert peak([]) == 0


def remembered(outputs: list[int]) -> OutputLengths:
    known = OutputLengths()
    for tokens in outputs:
        known.observe(tokens)
    return known


@given(lengths, st.integers(0, 250), shares)
def test_a_prediction_is_a_recent_output_longer_than_what_is_there(
    outputs: list[int], produced: int, share: float
) -> None:
    known, recent = remembered(outputs), outputs[-WINDOW:]
    assert len(known) == len(recent)
    longer = sorted(tokens for tokens in recent if tokens > produced)
    predicted = known.predict(produced, share)
    if longer:
        assert predicted == longer[int(share * len(longer))]
    else:
        assert predicted == 2 * produced


def test_what_is_predicted_is_distributed_like_what_was_seen() -> None:
    known = remembered([10] * 90 + [1000] * 10)
    tail = [known.predict(0, share / 100) for share in range(100)]
    assert (tail.count(10), tail.count(1000)) == (90, 10)
    assert known.predict(11, 0.0) == 1000, "it has outlived the short ones"


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_old_outputs_are_forgotten(share: float) -> None:
    known = remembered([5] * WINDOW + [70] * WINDOW)
    assert known.predict(0, share) == 70
