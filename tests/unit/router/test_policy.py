"""Policies choose from pictures of workers; nothing else is needed to test them."""

import random
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec import structs

from tercet.errors import ConfigError
from tercet.ids import RequestId
from tercet.router.policies import POLICIES
from tercet.router.policy import Ask, Policy, WorkerView
from tercet.router.pool import ListedPool
from tercet.wire import Endpoint

MakeEndpoint = Callable[..., Endpoint]
ASK = Ask(RequestId("r"), tokens=100)


@pytest.fixture
def views(endpoint: MakeEndpoint) -> list[WorkerView]:
    """Three idle workers."""
    return [
        WorkerView(
            endpoint=endpoint(f"decode-{number}"),
            report=None,
            report_age_s=0.0,
            suspect=False,
            pending_tokens=0,
            load_tokens=0,
            outstanding=0,
        )
        for number in range(3)
    ]


def policy(name: str, **options: float) -> Policy:
    return POLICIES.options(name, options).build(random.Random(1))


def chosen(policy: Policy, views: list[WorkerView]) -> str:
    choice = policy.choose(ASK, ListedPool(views))
    assert choice is not None
    return choice.view.worker


@pytest.mark.parametrize("name", POLICIES.names)
def test_no_policy_picks_a_suspect(name: str, views: list[WorkerView]) -> None:
    views = [
        structs.replace(views[0], suspect=True),
        views[1],
        structs.replace(views[2], suspect=True),
    ]
    assert {chosen(policy(name), views) for _ in range(20)} == {"decode-1"}
    assert policy(name).choose(ASK, ListedPool([views[0]])) is None
    assert policy(name).choose(ASK, ListedPool([])) is None


@pytest.mark.parametrize("name", ["prefix_affinity", "least_pending", "power_of_two"])
def test_pick_prefers_the_least_loaded(name: str, views: list[WorkerView]) -> None:
    views = [structs.replace(views[0], load_tokens=50), views[1]]
    assert {chosen(policy(name), views) for _ in range(20)} == {"decode-1"}


@pytest.mark.parametrize("name", ["prefix_affinity", "least_pending", "round_robin"])
def test_ties_spread_evenly(name: str, views: list[WorkerView]) -> None:
    built = policy(name)
    assert [chosen(built, views) for _ in range(6)] == ["decode-0", "decode-1", "decode-2"] * 2


def test_round_robin_does_not_look_at_loads(views: list[WorkerView]) -> None:
    built = policy("round_robin")
    views = [structs.replace(views[0], load_tokens=10_000), views[1]]
    assert [chosen(built, views) for _ in range(4)] == ["decode-0", "decode-1"] * 2


def test_random_reaches_everybody_evenly(views: list[WorkerView]) -> None:
    built = policy("random")
    counts = Counter(chosen(built, views) for _ in range(3000))
    assert all(900 < count < 1100 for count in counts.values())


def test_power_of_two_never_picks_the_worst_of_three(views: list[WorkerView]) -> None:
    built = policy("power_of_two")
    views = [
        structs.replace(view, load_tokens=load) for view, load in zip(views, (1, 2, 3), strict=True)
    ]
    counts = Counter(chosen(built, views) for _ in range(3000))
    assert counts["decode-2"] == 0
    assert counts["decode-0"] == pytest.approx(2000, rel=0.1)


def test_a_cached_prefix_attracts_as_far_as_waiting_costs_less(views: list[WorkerView]) -> None:
    built = policy("prefix_affinity")
    near = structs.replace(views[0], hit_tokens=64, load_tokens=63)
    far = structs.replace(views[0], hit_tokens=64, load_tokens=65)
    assert chosen(built, [near, views[1]]) == "decode-0"
    assert chosen(built, [far, views[1]]) == "decode-1"


def test_a_hit_too_small_to_be_useful_does_not_attract(views: list[WorkerView]) -> None:
    views = [views[0], structs.replace(views[1], hit_tokens=32)]
    assert chosen(policy("prefix_affinity"), views) == "decode-1"
    assert chosen(policy("prefix_affinity", hit_tokens_min=33), views) == "decode-0"


def test_the_choice_explains_itself(views: list[WorkerView]) -> None:
    choice = policy("prefix_affinity").choose(
        ASK, ListedPool([views[0], structs.replace(views[1], load_tokens=7)])
    )
    assert choice is not None
    costs = {scored.view.worker: scored.cost_tokens for scored in choice.candidates}
    assert costs == {"decode-0": 100, "decode-1": 107}


def test_an_unknown_policy_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        ConfigError, match=r"'prefix_afinity'.*there are prefix_affinity, .*least_pending"
    ):
        POLICIES.options("prefix_afinity", {})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random", {"hit_tokens_min": 1}),
        ("prefix_affinity", {"hit_tokens": 1}),
        ("prefix_affinity", {"hit_tokens_min": 1.5}),
        ("prefix_affinity", {"hit_tokens_min": -1}),
        ("prefix_affinity", {"hit_tokens_min": float("inf")}),
    ],
)
def test_options_a_policy_does_not_have_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"options of {name} are"):
        POLICIES.options(name, options)


def test_whole_numbers_may_come_as_floats() -> None:
    assert POLICIES.options("prefix_affinity", {"hit_tokens_min": 32.0})
