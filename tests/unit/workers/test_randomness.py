"""Random numbers must be the same everywhere for ever, and look like random numbers."""

from tercet.workers.randomness import mix, uniform


def test_draws_are_pinned_because_a_replay_on_a_newer_version_must_repeat_them() -> None:
    assert [uniform(0, 0), uniform(0, 1), uniform(7, 1000)] == [
        0.28176129772258496,
        0.6524484863740322,
        0.9550364971061203,
    ]


def test_mix_is_a_bijection_where_we_look() -> None:
    assert len({mix(word) for word in range(50_000)}) == 50_000


def test_uniform_fills_the_unit_interval_evenly_along_positions_and_along_seeds() -> None:
    for draws in ([uniform(3, i) for i in range(20_000)], [uniform(i, 3) for i in range(20_000)]):
        assert all(0.0 <= u < 1.0 for u in draws)
        buckets = [0] * 20
        for u in draws:
            buckets[int(u * 20)] += 1
        chi_squared = sum((count - 1000) ** 2 / 1000 for count in buckets)
        assert chi_squared < 43.8, "beyond the 99.9 % quantile of 19 degrees of freedom"


def test_neighbouring_seeds_do_not_share_a_shifted_sequence() -> None:
    first = {uniform(1, i) for i in range(1000)}
    second = {uniform(2, i) for i in range(1000)}
    assert not first & second


def test_any_integer_is_a_seed() -> None:
    assert uniform(-1, 5) == uniform(2**64 - 1, 5)
    assert 0.0 <= uniform(2**200 + 9, 2**40) < 1.0
