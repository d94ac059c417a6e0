"""A key is as long as its prefix is hot, and no memory outlives the window."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.ids import RequestId
from tercet.router.dualmap.hotness import Hotness
from tercet.router.prefix_names import PrefixName

N = 8


def hotness(
    window_s: float = 60.0, window_requests: int = 1000, requests_min: int = 4, depth_max: int = 8
) -> Hotness:
    return Hotness(
        window_s=window_s,
        window_requests=window_requests,
        requests_min=requests_min,
        depth_max=depth_max,
    )


def names(*numbers: int) -> list[PrefixName]:
    return [PrefixName(number) for number in numbers]


def observe(subject: Hotness, first: int, count: int, *prefix: int, at_s: float = 0.0) -> None:
    """`count` requests, numbered from `first`, that share `prefix` and go on differently."""
    for number in range(first, first + count):
        subject.observe(RequestId(f"r{number}"), names(*prefix, 10_000 + number), at_s)


def test_cold_prefixes_are_keys_at_once() -> None:
    subject = hotness()
    observe(subject, 0, 100)
    assert subject.depth(names(10_000, 7), N) == 0


def test_a_prefix_above_twice_its_share_grows_and_not_before() -> None:
    subject = hotness()
    observe(subject, 0, 75)
    observe(subject, 100, 25, 1)
    assert subject.share(PrefixName(1)) == 2 / N
    assert subject.depth(names(1, 2), N) == 0
    observe(subject, 200, 1, 1)
    assert subject.depth(names(1, 2), N) == 1


def test_a_grown_prefix_folds_below_its_share_and_not_before() -> None:
    subject = hotness()
    observe(subject, 0, 20, 1)
    assert subject.depth(names(1, 2), N) == 1
    observe(subject, 100, 140)
    assert subject.share(PrefixName(1)) == 1 / N
    assert subject.depth(names(1, 2), N) == 1
    observe(subject, 300, 1)
    assert subject.depth(names(1, 2), N) == 0
    observe(subject, 400, 22, 1)
    assert 1 / N < subject.share(PrefixName(1)) < 2 / N
    assert subject.depth(names(1, 2), N) == 0, "it has to become hot again to grow again"


def test_a_long_system_prompt_is_passed_in_one_step() -> None:
    """Every request shares its first three granules: keys have the fourth from the first request that may grow."""
    subject = hotness()
    observe(subject, 0, 4, 1, 2, 3)
    assert subject.depth(names(1, 2, 3, 4), N) == 3


def test_a_prompt_that_is_hot_to_its_end_has_no_longer_prefix() -> None:
    subject = hotness()
    observe(subject, 0, 10, 1, 2)
    assert subject.depth(names(1, 2), N) == 2


def test_two_workers_need_no_longer_keys() -> None:
    subject = hotness()
    observe(subject, 0, 100, 1)
    assert subject.depth(names(1, 2), 2) == 0
    assert subject.depth(names(1, 2), 3) == 1


def test_nothing_grows_from_the_first_few_requests() -> None:
    subject = hotness(requests_min=4)
    observe(subject, 0, 3, 1)
    assert subject.depth(names(1, 2), N) == 0


def test_a_request_that_is_asked_for_again_counts_once() -> None:
    subject = hotness()
    for _ in range(10):
        subject.observe(RequestId("r"), names(1, 2), 0.0)
    assert subject.requests == 1
    assert subject.depth(names(1, 2), N) == 0


def test_requests_are_forgotten_with_time_and_with_number() -> None:
    subject = hotness(window_s=10.0, window_requests=5)
    observe(subject, 0, 8, 1, at_s=0.0)
    assert subject.requests == 5
    subject.validate()
    observe(subject, 100, 1, 2, at_s=9.9)
    assert subject.requests == 5
    observe(subject, 200, 1, 2, at_s=10.0)
    assert (subject.requests, subject.share(PrefixName(1))) == (2, 0.0)
    subject.validate()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.lists(st.integers(0, 3), max_size=5),
            st.floats(0, 5),
            st.integers(1, 9),
        ),
        max_size=60,
    )
)
def test_whatever_comes_counts_are_right_and_depths_possible(
    events: list[tuple[int, list[int], float, int]],
) -> None:
    subject = hotness(window_s=8.0, window_requests=10, requests_min=2, depth_max=3)
    now_s = 0.0
    for number, path, later_s, workers in events:
        now_s += later_s
        prefixes = names(*(hash(tuple(path[: end + 1])) % 2**64 for end in range(len(path))))
        subject.observe(RequestId(f"r{number}"), prefixes, now_s)
        depth = subject.depth(prefixes, workers)
        assert 0 <= depth <= min(3, len(prefixes))
        for hot in prefixes[:depth]:
            assert subject.share(hot) >= 1 / workers
        if depth < min(3, len(prefixes)):
            assert subject.share(prefixes[depth]) <= max(2 / workers, 1 / subject.requests)
        subject.validate()
    assert len(subject) <= 10 * 3
