"""Who is let in: the tenant's limits and the model's count together, and the one to wait for is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.config import LimitsConfig, RateLimits, TenantLimits
from tercet.router.limits import LimitKind, Limits

EACH = RateLimits(requests_per_s=1.0, tokens_per_s=100.0, burst_s=10.0)
CONFIG = LimitsConfig(
    each_tenant=EACH,
    tenants={
        "big": TenantLimits(tokens_per_s=1000.0, weight=4.0),
        "free": TenantLimits(requests_per_s=0.0, tokens_per_s=0.0),
    },
    models={"m": RateLimits(tokens_per_s=5000.0)},
)


def admitted(limits: Limits, tenant: str, tokens: int, now_s: float = 0.0) -> int:
    """Calls let in at this moment."""
    count = 0
    while count < 1000 and limits.admit(tenant, "m", tokens, now_s) is None:
        count += 1
    return count


def test_without_limits_everything_is_let_in() -> None:
    assert admitted(Limits(LimitsConfig()), "a", 10**6) == 1000


def test_a_tenant_has_its_burst_and_then_its_rate() -> None:
    limits = Limits(CONFIG)
    assert admitted(limits, "a", 1) == 10
    refusal = limits.admit("a", "m", 1, 0.0)
    assert refusal is not None
    assert (refusal.kind, refusal.retry_after_s) == (LimitKind.TENANT_REQUESTS, 1.0)
    assert refusal.reason == "the limit of tenant 'a' is 1 requests a second"
    assert admitted(limits, "a", 1, 3.0) == 3


def test_one_tenant_does_not_use_up_what_another_has() -> None:
    limits = Limits(CONFIG)
    assert admitted(limits, "a", 100) == admitted(limits, "b", 100) == 10


def test_calls_without_a_tenant_are_one_tenant() -> None:
    limits = Limits(CONFIG)
    assert admitted(limits, "", 500) == 2
    refusal = limits.admit("", "m", 500, 0.0)
    assert refusal is not None
    assert refusal.reason == "the limit of calls without a tenant is 100 tokens a second"


def test_a_named_tenant_has_its_own_limits_and_the_rest_from_each() -> None:
    limits = Limits(CONFIG)
    assert CONFIG.of_tenant("big") == RateLimits(requests_per_s=1.0, tokens_per_s=1000.0)
    assert admitted(limits, "big", 1000) == 10
    assert admitted(Limits(CONFIG), "free", 1) == 1000


def test_weights_are_one_unless_given() -> None:
    assert [CONFIG.weight(tenant) for tenant in ("big", "free", "other", "")] == [4, 1, 1, 1]


def test_a_model_has_a_limit_that_all_tenants_share() -> None:
    limits = Limits(CONFIG)
    assert admitted(limits, "free", 25_000) == 2
    refusal = limits.admit("big", "m", 100, 0.0)
    assert refusal is not None
    assert (refusal.kind, refusal.name) == (LimitKind.MODEL_TOKENS, "m")
    assert refusal.reason == "the limit of model 'm' is 5000 tokens a second"
    assert limits.admit("big", "another", 100, 0.0) is None


def test_a_refused_call_is_charged_to_nobody() -> None:
    limits = Limits(CONFIG)
    limits.generated("a", "m", 2000, 0.0)
    waits_s = set()
    for _ in range(100):
        refusal = limits.admit("a", "m", 900, 0.0)
        assert refusal is not None
        waits_s.add(refusal.retry_after_s)
    assert waits_s == {19.0}
    assert limits.admit("free", "m", 48_000, 0.0) is None, "the model has all but the output left"
    assert limits.admit("a", "m", 900, 19.0) is None


def test_output_is_charged_as_it_comes_and_never_refused() -> None:
    limits = Limits(CONFIG)
    assert limits.admit("a", "m", 100, 0.0) is None
    limits.generated("a", "m", 2900, 0.0)
    refusal = limits.admit("a", "m", 100, 0.0)
    assert refusal is not None
    # 3,000 were taken of 1,000: 2,000 are owed, and 100 have to be there.
    assert (refusal.kind, refusal.retry_after_s) == (LimitKind.TENANT_TOKENS, 21.0)


def test_a_prompt_longer_than_the_burst_is_let_in_when_nothing_was_used() -> None:
    limits = Limits(CONFIG)
    assert limits.admit("a", "m", 4000, 0.0) is None
    refusal = limits.admit("a", "m", 4000, 0.0)
    assert refusal is not None
    assert refusal.retry_after_s == 40.0


def test_made_up_names_do_not_touch_tenants_that_have_a_section() -> None:
    limits = Limits(CONFIG, accounts_max=4)
    for number in range(50):
        limits.admit(f"made-up-{number}", "m", 1000, 0.0)
    assert limits.admit("another", "m", 1000, 0.0) is not None
    assert limits.admit("big", "m", 1000, 10.0) is None


@pytest.mark.parametrize("kind", LimitKind)
def test_every_kind_of_limit_has_a_sentence(kind: LimitKind) -> None:
    each, models = RateLimits(), RateLimits()
    one = RateLimits(**{f"{kind.split('_')[1]}_per_s": 1.0})
    if kind.startswith("tenant"):
        each = one
    else:
        models = one
    limits = Limits(LimitsConfig(each_tenant=each, models={"m": models}))
    admitted(limits, "a", 1)
    refusal = limits.admit("a", "m", 1, 0.0)
    assert refusal is not None
    assert refusal.kind is kind
    assert " is 1 " in refusal.reason


CALLS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "big", ""]), st.integers(1, 3000), st.floats(0.0, 3.0)),
    max_size=40,
)


@given(CALLS, st.sampled_from(["a", "b", "big", ""]), st.integers(1, 3000))
def test_the_time_told_is_enough_if_nobody_else_comes(
    calls: list[tuple[str, int, float]], tenant: str, tokens: int
) -> None:
    limits, now_s = Limits(CONFIG), 0.0
    for other, amount, pause_s in calls:
        now_s += pause_s
        if limits.admit(other, "m", amount, now_s) is None:
            limits.generated(other, "m", amount, now_s)
    refusal = limits.admit(tenant, "m", tokens, now_s)
    if refusal is not None:
        assert limits.admit(tenant, "m", tokens, now_s + refusal.retry_after_s) is None
