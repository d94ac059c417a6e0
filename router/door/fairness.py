"""Whose turn it is among tenants: the virtual token counter (Sheng et al., OSDI '24) as tags of start-time fair queueing.

    tenant a   served ──────────►│ 400 │ 400 │ 400 ···      each waiting request has the tag at which it begins:
    tenant b   served ────►│ 100 │ 100 │ ···               who has the lowest one is served next
                           ▲ now: the least that any tenant who waits has been served

A tenant's requests get rising tags, each as far after the last one as that one was long; so its place in a line is known
when it comes. A tenant that was away begins at what the others have been served, so nobody saves up turns. Serving low tags
first gives every tenant that asks the same share of tokens, by weight, whatever the others ask. Output is added as it is
generated. There are many lines, which are not served in step: so what counts is what was served, not the tags that were.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

TENANTS_MAX = 4096
"""Tenants that wait or are ahead of others, and are remembered; one that is forgotten begins where the others are."""


@dataclass(slots=True)
class Account:
    """One tenant's tokens, by its weight."""

    finish: float
    """Of everything that has a tag."""
    waiting: float = 0.0
    """Of what has a tag and is not served."""
    requests: int = 0
    """How many of these there are."""

    @property
    def served(self) -> float:
        return self.finish - self.waiting


class FairShare:
    """Tags for requests; each tag is followed by `served` or `unserved`. `weight` of a tenant is its share against others."""

    def __init__(self, weight: Callable[[str], float] = lambda tenant: 1.0) -> None:
        self._weight = weight
        self._now = 0.0
        """Virtual time: where those begin who were away."""
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    def __len__(self) -> int:
        return len(self._accounts)

    def tag(self, tenant: str, tokens: int) -> float:
        """Where a request of so many prompt tokens stands; the tenant's next one stands behind it."""
        account = self._account(tenant)
        start = account.finish
        account.finish += tokens / self._weight(tenant)
        account.waiting += tokens / self._weight(tenant)
        account.requests += 1
        self._forget()
        return start

    def served(self, tenant: str, tokens: int) -> None:
        """A request was sent to a worker."""
        account = self._settle(tenant, tokens)
        waiting = [other.served for other in self._accounts.values() if other.requests]
        self._now = max(self._now, min([account.served, *waiting]))

    def unserved(self, tenant: str, tokens: int) -> None:
        """A request will not be sent: the tenant has not had these tokens."""
        self._settle(tenant, tokens).finish -= tokens / self._weight(tenant)

    def generated(self, tenant: str, tokens: int) -> None:
        """Output tokens count too, when they are there."""
        self._account(tenant).finish += tokens / self._weight(tenant)
        self._forget()

    def _account(self, tenant: str) -> Account:
        account = self._accounts.setdefault(tenant, Account(self._now))
        self._accounts.move_to_end(tenant)
        if not account.requests:
            account.finish = max(account.finish, self._now)
        return account

    def _settle(self, tenant: str, tokens: int) -> Account:
        account = self._accounts[tenant]
        account.requests -= 1
        # Not a sum that rounding has left a rest of: who waits for nothing has been served everything.
        account.waiting -= tokens / self._weight(tenant) if account.requests else account.waiting
        return account

    def _forget(self) -> None:
        """Tenants nobody has to remember, since their next request begins now anyway; and those over the bound."""
        for _ in range(len(self._accounts)):
            tenant, account = next(iter(self._accounts.items()))
            if account.requests and len(self._accounts) > TENANTS_MAX:
                self._accounts.move_to_end(tenant)
            elif account.requests or (account.finish > self._now and len(self) <= TENANTS_MAX):
                return
            else:
                del self._accounts[tenant]
