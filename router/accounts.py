"""What tenants and models have left of their limits: two buckets each, and a bounded number of them where clients choose the
names."""

import math

from tercet.config import RateLimits
from tercet.router.bucket import Bucket

ACCOUNTS_MAX = 4096
"""Of tenants without limits of their own, at one front door."""
LEAVE_TOGETHER = 8
"""Where there are too many, at least one in so many is forgotten, so that this is seldom done."""


class Account:
    """One tenant's, or one model's."""

    def __init__(self, limits: RateLimits) -> None:
        self.requests = Bucket(limits.requests_per_s or math.inf, limits.burst_s)
        self.tokens = Bucket(limits.tokens_per_s or math.inf, limits.burst_s)

    @property
    def full_at_s(self) -> float:
        """When both buckets will be full; from then on it is no different from a new one."""
        return max(self.requests.full_at_s, self.tokens.full_at_s)

    def owe_like(self, other: "Account") -> None:
        """Be full no sooner than the other one."""
        self.requests.full_at_s = max(self.requests.full_at_s, other.requests.full_at_s)
        self.tokens.full_at_s = max(self.tokens.full_at_s, other.tokens.full_at_s)


class Accounts:
    """By name, all with the same limits; opened when they are asked for.

    Full ones are forgotten first, which changes nothing. Where too many are not full, those go that soonest would be, and
    whoever comes new begins with what they had taken: it may be one of them. So nobody is rid of a debt by being forgotten, and
    made-up names get no more than `accounts_max` tenants would.
    """

    def __init__(self, limits: RateLimits, accounts_max: int = ACCOUNTS_MAX) -> None:
        assert accounts_max > 0, accounts_max
        self._limits, self._accounts_max = limits, accounts_max
        self._open: dict[str, Account] = {}
        self._forgotten = Account(limits)
        """Full when the last of all forgotten ones would be."""

    def __len__(self) -> int:
        return len(self._open)

    def of(self, name: str, now_s: float) -> Account:
        """The account to charge."""
        account = self._open.get(name)
        if account is None:
            if len(self._open) >= self._accounts_max:
                self._forget(now_s)
            account = self._open[name] = Account(self._limits)
            account.owe_like(self._forgotten)
        return account

    def _forget(self, now_s: float) -> None:
        names = sorted(self._open, key=lambda name: self._open[name].full_at_s)
        full = sum(account.full_at_s <= now_s for account in self._open.values())
        for name in names[: max(full, self._accounts_max // LEAVE_TOGETHER, 1)]:
            self._forgotten.owe_like(self._open.pop(name))
