"""What a bucket lets through is bounded over every span of time, and what it says about waiting is true."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.router.bucket import DEBT_S_MAX, EARLY_S_MAX, Bucket

RATES = st.floats(0.01, 1e5)
BURSTS_S = st.floats(0.1, 120.0)
AMOUNTS = st.integers(1, 50_000)
PAUSES_S = st.floats(0.0, 300.0)
ASKED = st.lists(st.tuples(PAUSES_S, AMOUNTS), min_size=1, max_size=40)
START_S = st.floats(0.0, 1e6)


@given(RATES, BURSTS_S, ASKED, START_S)
def test_no_span_of_time_sees_more_than_the_burst_and_the_rate_or_one_large_request(
    per_s: float, burst_s: float, asked: list[tuple[float, int]], start_s: float
) -> None:
    bucket, now_s = Bucket(per_s, burst_s), start_s
    taken: list[tuple[float, int]] = []
    for pause_s, amount in asked:
        now_s += pause_s
        if bucket.wait_s(amount, now_s) == 0:
            bucket.take(amount, now_s)
            taken.append((now_s, amount))
    for first, (since_s, _) in enumerate(taken):
        total = 0
        for until_s, amount in taken[first:]:
            total += amount
            span_s = until_s - since_s + 2 * EARLY_S_MAX
            assert total <= max(burst_s * per_s, amount) + per_s * span_s


@given(RATES, BURSTS_S, ASKED, AMOUNTS, START_S)
def test_who_comes_back_when_told_is_let_in_and_who_comes_sooner_is_not(
    per_s: float, burst_s: float, owed: list[tuple[float, int]], amount: int, start_s: float
) -> None:
    bucket, now_s = Bucket(per_s, burst_s), start_s
    for pause_s, tokens in owed:
        now_s += pause_s
        bucket.owe(tokens, now_s)
    wait_s = bucket.wait_s(amount, now_s)
    assert bucket.wait_s(amount, now_s + wait_s) == 0
    if wait_s > 0.01:
        assert bucket.wait_s(amount, now_s + wait_s - 0.01) == pytest.approx(0.01, abs=1e-6)


@given(RATES, BURSTS_S, ASKED)
def test_output_never_locks_anybody_out_for_longer_than_the_bound(
    per_s: float, burst_s: float, generated: list[tuple[float, int]]
) -> None:
    bucket, now_s = Bucket(per_s, burst_s), 0.0
    for pause_s, tokens in generated:
        now_s += pause_s
        bucket.owe(tokens, now_s)
        assert bucket.wait_s(1e9, now_s) <= burst_s + DEBT_S_MAX + 1e-6


def test_a_debt_by_one_large_request_is_paid_whole() -> None:
    bucket = Bucket(1.0, 10.0)
    bucket.take(3 * DEBT_S_MAX, 0.0)
    bucket.owe(1, 0.0)  # a debt beyond the bound grows no further, and is not cut down to it either
    assert bucket.wait_s(1, 0.0) == 3 * DEBT_S_MAX - 9.0


def test_without_a_limit_nothing_is_ever_used_up() -> None:
    bucket = Bucket(math.inf, 10.0)
    bucket.take(10**9, 0.0)
    bucket.owe(10**9, 0.0)
    assert bucket.wait_s(10**9, 0.0) == 0


def test_a_bucket_holds_its_burst_and_no_more() -> None:
    bucket = Bucket(2.0, 5.0)
    for _ in range(10):
        assert bucket.wait_s(1, 1000.0) == 0
        bucket.take(1, 1000.0)
    assert bucket.wait_s(1, 1000.0) == pytest.approx(0.5)
    assert bucket.wait_s(3, 1000.0) == pytest.approx(1.5)
