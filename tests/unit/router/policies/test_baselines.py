"""The published rules that DualMap is measured against, each at the point where it decides."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from tercet.ids import RequestId
from tercet.router.policies import POLICIES
from tercet.router.policies.bounded_hash import BoundedHashReason
from tercet.router.policies.cache_aware import CacheAwareReason
from tercet.router.policy import Ask, Choice, Chooser, WorkerView
from tercet.router.pool import ListedPool
from tercet.router.prefix_names import PrefixName, mix

MakeView = Callable[..., WorkerView]
ASK = Ask(RequestId("r"), tokens=1000)


def policy(name: str, **options: float) -> Chooser:
    return POLICIES.options(name, options).build(random.Random(1))


def choose(chooser: Chooser, *views: WorkerView, ask: Ask = ASK) -> Choice:
    choice = chooser.choose(ask, ListedPool(views))
    assert choice is not None
    return choice


def chosen(chooser: Chooser, *views: WorkerView) -> str:
    return choose(chooser, *views).view.worker


# ---- min_ttft --------------------------------------------------------------------------------------------------------


def test_min_ttft_counts_the_attention_that_a_hit_saves(view: MakeView) -> None:
    """Idle: 1 s + 0.5 s of attention. With 800 cached: 0.2 s + 0.18 s, so 1.12 s of queue is what the hit is worth."""
    near = view("near", hit=800, pending=1110)
    assert chosen(policy("min_ttft"), near, view("idle")) == "near"
    late = view("near", hit=800, pending=1130)
    assert chosen(policy("min_ttft"), late, view("idle")) == "idle"


# ---- kv_cost ---------------------------------------------------------------------------------------------------------


def test_kv_cost_adds_what_is_decoded_to_what_must_be_computed(view: MakeView) -> None:
    near, idle = view("near", hit=600, contexts=599), view("idle")
    assert chosen(policy("kv_cost"), near, idle) == "near"
    assert chosen(policy("kv_cost"), view("near", hit=600, contexts=601), idle) == "idle"
    assert chosen(policy("kv_cost", overlap_weight=0.5), near, idle) == "idle"
    assert chosen(policy("kv_cost"), view("near", hit=600, pending=601), idle) == "idle"


def test_a_temperature_spreads_by_cost(view: MakeView) -> None:
    views = [view("cheap", hit=500), view("dear", pending=1000)]
    rule = policy("kv_cost", temperature=1.0)
    warm = Counter(chosen(rule, *views) for _ in range(3000))
    odds = warm["cheap"] / warm["dear"]
    assert odds == pytest.approx(2.71828 ** ((2000 - 500) / 2000), rel=0.15)
    cold = policy("kv_cost", temperature=0.01)
    assert {chosen(cold, *views) for _ in range(100)} == {"cheap"}


# ---- cache_aware -----------------------------------------------------------------------------------------------------


def test_cache_aware_follows_a_match_above_its_threshold(view: MakeView) -> None:
    rule = policy("cache_aware")
    half, more = view("near", hit=500, blocks_used=9), view("near", hit=501, blocks_used=9)
    other = view("other", blocks_used=8)
    choice = choose(rule, half, other)
    assert (choice.view.worker, choice.reason) == ("other", CacheAwareReason.NO_MATCH)
    choice = choose(rule, more, other)
    assert (choice.view.worker, choice.reason) == ("near", CacheAwareReason.MATCH)


def test_cache_aware_forgets_matches_when_queues_are_uneven(view: MakeView) -> None:
    rule = policy("cache_aware", uneven_requests=4, uneven_ratio=1.5)
    near = view("near", hit=1000, outstanding=14)
    for shortest, expected in ((10, "near"), (9, "short")):
        assert chosen(rule, near, view("short", outstanding=shortest)) == expected
    long = view("near", hit=1000, outstanding=100)
    assert chosen(rule, long, view("short", outstanding=80)) == "near", "not by the ratio"
    choice = choose(rule, long, view("short", outstanding=60))
    assert (choice.view.worker, choice.reason) == ("short", CacheAwareReason.UNEVEN)


# ---- bounded_hash ----------------------------------------------------------------------------------------------------


def keyed(number: int) -> Ask:
    names = [PrefixName(mix(number)), PrefixName(mix(number + 1)), PrefixName(mix(number + 2))]
    return Ask(RequestId("r"), 3 * 512, names=names, block_tokens=512)


def test_bounded_hash_keeps_to_the_owner_while_it_has_less_than_its_share(view: MakeView) -> None:
    """Three others have 7,000 tokens each. With L of its own the owner's share is 1.25 (L + 21,000 + 1,536) / 4: 10,243 is
    just below it, 10,245 above."""
    rule, ask = policy("bounded_hash", bound=1.25), keyed(7)
    names = [f"w{number}" for number in range(4)]
    owner = choose(rule, *map(view, names), ask=ask).view.worker
    for load, reason in ((10_243, BoundedHashReason.OWNER), (10_245, BoundedHashReason.OVERFLOW)):
        views = [view(name, pending=load if name == owner else 7000) for name in names]
        choice = choose(rule, *views, ask=ask)
        assert choice.reason is reason
        assert (choice.view.worker == owner) is (reason is BoundedHashReason.OWNER)


def test_bounded_hash_never_exceeds_the_bound(view: MakeView) -> None:
    rule, loads = policy("bounded_hash", bound=1.25), dict.fromkeys("abcdefgh", 0)
    for number in range(500):
        ask = keyed(number % 3 * 10)
        choice = choose(rule, *(view(name, pending=load) for name, load in loads.items()), ask=ask)
        loads[choice.view.worker] += ask.tokens
        mean = sum(loads.values()) / len(loads)
        assert max(loads.values()) <= 1.25 * mean + ask.tokens


def test_bounded_hash_keys_have_a_fixed_length(view: MakeView) -> None:
    """1,024 tokens are two of these blocks: the third does not matter, the second does."""
    rule, views = policy("bounded_hash"), [view(f"w{number}") for number in range(32)]
    ask = keyed(7)
    longer = Ask(RequestId("r"), 2048, names=[*ask.names[:2], PrefixName(1)], block_tokens=512)
    assert choose(rule, *views, ask=ask).view == choose(rule, *views, ask=longer).view
    others = {choose(rule, *views, ask=keyed(number)).view.worker for number in range(40)}
    assert len(others) > 16
