"""Names come from clients: there are never more accounts than the bound, and forgetting one forgives nothing."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.config import RateLimits
from tercet.router.accounts import Accounts

LIMITS = RateLimits(requests_per_s=1.0, tokens_per_s=100.0, burst_s=5.0)

Steps = list[tuple[int, int, float]]


def test_full_accounts_are_forgotten_before_those_that_owe() -> None:
    accounts = Accounts(LIMITS, accounts_max=8)
    debtor = accounts.of("debtor", 0.0)
    debtor.tokens.owe(10_000, 0.0)
    for number in range(7):
        accounts.of(f"idle-{number}", 0.0)
    fresh = accounts.of("fresh", 0.0)
    assert len(accounts) == 2
    assert accounts.of("debtor", 0.0) is debtor
    assert fresh.full_at_s <= 0.0, "what was forgotten owed nothing, so who comes new begins full"


def test_whoever_comes_where_all_owe_begins_with_the_least_debt_among_them() -> None:
    accounts = Accounts(LIMITS, accounts_max=3)
    for number in range(3):
        accounts.of(f"debtor-{number}", 0.0).tokens.owe(1000 * (number + 1), 0.0)
    assert accounts.of("fresh", 0.0).full_at_s == 10.0
    assert accounts.of("debtor-2", 0.0).full_at_s == 30.0
    assert len(accounts) == 3


def test_what_was_inherited_is_paid_by_time() -> None:
    accounts = Accounts(LIMITS, accounts_max=1)
    accounts.of("debtor", 0.0).tokens.owe(1000, 0.0)
    assert accounts.of("a", 9.0).tokens.wait_s(500, 9.0) == 1.0
    assert accounts.of("b", 10.0).tokens.wait_s(500, 10.0) == 0.0


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3000), st.floats(0.0, 5.0)), max_size=60),
)
def test_a_bounded_memory_never_lets_a_tenant_off(accounts_max: int, steps: Steps) -> None:
    bounded, unbounded = Accounts(LIMITS, accounts_max), Accounts(LIMITS, 1000)
    now_s = 0.0
    for tenant, tokens, pause_s in steps:
        now_s += pause_s
        mine, exact = bounded.of(str(tenant), now_s), unbounded.of(str(tenant), now_s)
        assert len(bounded) <= accounts_max
        for account in (mine, exact):
            account.requests.owe(1, now_s)
            account.tokens.owe(tokens, now_s)
        assert mine.tokens.full_at_s >= exact.tokens.full_at_s - 1e-6
        assert mine.requests.full_at_s >= exact.requests.full_at_s - 1e-6
