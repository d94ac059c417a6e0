import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.latency import (
    SAMPLES_MIN,
    UNFITTED,
    Coefficients,
    LatencyModel,
    LinearFit,
    attended_tokens,
    solve_non_negative,
)

PREFILL: Coefficients = (2e-3, 40e-6, 8e-9)
DECODE: Coefficients = (4e-3, 150e-6, 300e-9)


def decode_steps(
    model: LatencyModel, truth: Coefficients, rng: random.Random, steps: int, noise: float
) -> None:
    for _ in range(steps):
        batch = rng.randint(1, 64)
        context = batch * rng.randint(20, 2000)
        seconds = truth[0] + truth[1] * batch + truth[2] * context
        model.observe_decode(batch, context, seconds * rng.uniform(1 - noise, 1 + noise))


def worst_error(predict: Callable[[int, int], float], truth: Coefficients) -> float:
    """Largest relative error of predicted decode steps over a grid of shapes."""
    shapes = [(b, b * length) for b in (1, 8, 32, 64) for length in (30, 300, 1900)]
    return max(
        abs(predict(b, c) / (truth[0] + truth[1] * b + truth[2] * c) - 1.0) for b, c in shapes
    )


def test_attended_tokens_is_the_sum_over_the_last_tokens() -> None:
    assert attended_tokens(3, 10) == 8 + 9 + 10
    assert attended_tokens(5, 5) == 1 + 2 + 3 + 4 + 5


def test_decode_coefficients_are_recovered_under_noise() -> None:
    model = LatencyModel()
    decode_steps(model, DECODE, random.Random(1), 600, noise=0.1)
    assert worst_error(model.predict_decode_s, DECODE) < 0.05
    assert model.decode_coefficients == pytest.approx(DECODE, rel=0.15)
    assert model.prefill_coefficients == UNFITTED


def test_prefill_coefficients_are_recovered_from_chunks_of_every_length() -> None:
    model, rng = LatencyModel(), random.Random(2)
    for _ in range(600):
        tokens = rng.randint(16, 512)
        context = tokens + rng.randint(0, 8000)
        attended = attended_tokens(tokens, context)
        seconds = PREFILL[0] + PREFILL[1] * tokens + PREFILL[2] * attended
        model.observe_prefill(tokens, attended, seconds * rng.uniform(0.95, 1.05))
    assert model.prefill_coefficients == pytest.approx(PREFILL, rel=0.15)
    whole = PREFILL[0] + PREFILL[1] * 400 + PREFILL[2] * attended_tokens(400, 4000)
    assert model.predict_prefill_s(400, 4000) == pytest.approx(whole, rel=0.05)


def test_nothing_is_predicted_before_enough_samples() -> None:
    model = LatencyModel()
    for n in range(1, SAMPLES_MIN):
        model.observe_decode(n, 100 * n, 1e-3 * n)
    assert model.decode_coefficients == UNFITTED
    assert model.predict_decode_s(4, 400) == 0.0
    model.observe_decode(1, 100, 1e-3)
    assert model.predict_decode_s(4, 400) > 0.0


def test_given_coefficients_predict_at_once_and_then_follow_the_data() -> None:
    model = LatencyModel.from_coefficients(PREFILL, DECODE)
    assert model.predict_decode_s(10, 1000) == pytest.approx(4e-3 + 1.5e-3 + 0.3e-3)
    slower: Coefficients = (8e-3, 300e-6, 600e-9)
    decode_steps(model, slower, random.Random(3), 800, noise=0.05)
    assert worst_error(model.predict_decode_s, slower) < 0.1


def test_the_model_follows_a_machine_that_becomes_slower_and_faster_again() -> None:
    model, rng = LatencyModel(), random.Random(4)
    slow: Coefficients = (12e-3, 450e-6, 900e-9)
    for truth in (DECODE, slow, DECODE):
        decode_steps(model, truth, rng, 1500, noise=0.05)
        assert worst_error(model.predict_decode_s, truth) < 0.1


def test_pauses_do_not_become_the_model() -> None:
    model, rng = LatencyModel(), random.Random(5)
    for _ in range(50):
        decode_steps(model, DECODE, rng, 20, noise=0.05)
        model.observe_decode(4, 400, 0.5)  # a hundred times too long: a page fault, a collection
    assert worst_error(model.predict_decode_s, DECODE) < 0.15


def test_a_slow_first_step_is_forgiven() -> None:
    model = LatencyModel()
    model.observe_decode(1, 20, 3.0)
    decode_steps(model, DECODE, random.Random(6), 64, noise=0.02)
    assert worst_error(model.predict_decode_s, DECODE) < 0.1


def test_steps_all_alike_do_not_erase_what_was_learned() -> None:
    model, rng = LatencyModel(), random.Random(7)
    decode_steps(model, DECODE, rng, 600, noise=0.02)
    at_8 = DECODE[0] + DECODE[1] * 8 + DECODE[2] * 800
    for _ in range(5000):
        model.observe_decode(8, 800, at_8 * rng.uniform(0.98, 1.02))
    assert model.predict_decode_s(8, 800) == pytest.approx(at_8, rel=0.02)
    assert worst_error(model.predict_decode_s, DECODE) < 0.5


def test_durations_that_are_no_measurement_are_ignored() -> None:
    fit = LinearFit()
    for seconds in (0.0, -1.0, math.nan, math.inf):
        for _ in range(100):
            fit.observe(1.0, 1.0, seconds)
    assert fit.coefficients == UNFITTED


def test_a_million_observations_keep_the_sums_finite() -> None:
    fit = LinearFit()
    for n in range(40_000):  # the weight passes its bound every 5,300 observations
        fit.observe(1 + n % 64, 100 * (1 + n % 7), 1e-3 * (1 + n % 64))
    assert fit.coefficients == pytest.approx((0.0, 1e-3, 0.0), abs=1e-5)


def test_non_negative_solution_beats_the_clipped_one() -> None:
    # The free minimum has a negative first coefficient; clipping it to zero would leave the others wrong.
    sums = (1.0, 0.9, 0.0, 1.0, 0.0, 1.0)
    assert solve_non_negative(sums, (0.0, 1.0, 2.0)) == pytest.approx((0.0, 1.0, 2.0))


@given(
    st.lists(
        st.tuples(st.integers(1, 10_000), st.integers(0, 10**9), st.floats(1e-9, 1e6)),
        min_size=SAMPLES_MIN,
        max_size=200,
    )
)
def test_coefficients_are_never_negative_nor_infinite(
    steps: list[tuple[int, int, float]],
) -> None:
    model = LatencyModel()
    for batch, context, seconds in steps:
        model.observe_decode(batch, context, seconds)
        assert all(math.isfinite(c) and c >= 0.0 for c in model.decode_coefficients)
