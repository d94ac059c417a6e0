"""Whose turn it is among tenants: start-time fair queueing (Goyal, Vin, Cheng, 1996), counted in tokens.

A tenant's requests get rising tags, each as far after the last one as that one was long; a tenant that was away begins at
the tag that is being served now, so nobody saves up turns. Serving low tags first gives every tenant that asks the same
share of tokens, by weight, whatever the others ask: the virtual token counter of Sheng et al. (OSDI '24) with the counter
read when a request comes, so that its place in the line is known at once. Output is added as it is generated.

There are many lines, and they are not served in step: the time that newcomers begin at is that of the one who waits with the
lowest tag, not the highest that was served, or a flood that is ahead in one line would put everybody else behind it.
"""

from collections import OrderedDict
from collections.abc import Callable

TENANTS_MAX = 4096
"""Tenants that are ahead of the others and therefore remembered; one that is forgotten begins where the others are."""


class FairShare:
    """Tags for requests. `weight` of a tenant is its share against others; 1 unless somebody says more."""

    def __init__(self, weight: Callable[[str], float] = lambda tenant: 1.0) -> None:
        self._weight = weight
        self._now = 0.0
        """Virtual time: where those begin who were away."""
        self._finish: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._finish)

    def tag(self, tenant: str, tokens: int) -> float:
        """Where a request of so many prompt tokens stands; the tenant's next one stands behind it."""
        start = max(self._now, self._finish.get(tenant, 0.0))
        self._finish[tenant] = start + tokens / self._weight(tenant)
        self._finish.move_to_end(tenant)
        self._forget()
        return start

    def served(self, tag: float, waiting: float) -> None:
        """A request with this tag was sent to a worker; `waiting` is the lowest tag of those who wait beside it."""
        self._now = max(self._now, min(tag, waiting))

    def unserved(self, tenant: str, tokens: int) -> None:
        """A request that has a tag will not be sent: the tenant has not had these tokens."""
        if tenant in self._finish:
            self._finish[tenant] -= tokens / self._weight(tenant)

    def generated(self, tenant: str, tokens: int) -> None:
        """Output tokens count too, when they are there."""
        finish = max(self._now, self._finish.get(tenant, 0.0))
        self._finish[tenant] = finish + tokens / self._weight(tenant)
        self._forget()

    def _forget(self) -> None:
        """Tenants nobody has to remember, since their next request begins now anyway; and those over the bound."""
        while self._finish:
            tenant, finish = next(iter(self._finish.items()))
            if finish > self._now and len(self._finish) <= TENANTS_MAX:
                return
            del self._finish[tenant]
