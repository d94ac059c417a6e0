"""Which calls are let in: so many requests and tokens a second for each tenant, and for each model.

A call is one request, however many choices it has. Its tokens are those of its `usage`: the prompt when it comes, the output as
it is generated. So `max_tokens` that are never used cost nothing, and a tenant whose answers turn out long is let in again
when that is paid.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tercet.config import LimitsConfig, RateLimits
from tercet.router.accounts import ACCOUNTS_MAX, Account, Accounts
from tercet.router.bucket import Bucket


class LimitKind(StrEnum):
    """Whose limit, and of what."""

    TENANT_REQUESTS = "tenant_requests"
    TENANT_TOKENS = "tenant_tokens"
    MODEL_REQUESTS = "model_requests"
    MODEL_TOKENS = "model_tokens"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that a call has to wait for longest."""

    kind: LimitKind
    name: str
    """The tenant's or the model's."""
    per_s: float
    retry_after_s: float

    @property
    def reason(self) -> str:
        """The limit in words."""
        owner, what = self.kind.split("_")
        whose = f"{owner} {self.name!r}" if self.name else "calls without a tenant"
        return f"the limit of {whose} is {self.per_s:.12g} {what} a second"


class Fee(NamedTuple):
    """What a call takes from one bucket."""

    kind: LimitKind
    name: str
    bucket: Bucket
    amount: int


class Limits:
    """The limits of one front door. Times are the caller's; they only run forward."""

    def __init__(self, config: LimitsConfig, accounts_max: int = ACCOUNTS_MAX) -> None:
        self._named = {name: Account(config.of_tenant(name)) for name in config.tenants}
        self._others = Accounts(config.each_tenant, accounts_max)
        self._models = {name: Account(limits) for name, limits in config.models.items()}
        self._unlimited = Account(RateLimits())

    def admit(self, tenant: str, model: str, prompt_tokens: int, now_s: float) -> Refusal | None:
        """Charge a call to its tenant and its model; or to neither, and say what it has to wait for. After that time it is
        let in, if no other call came."""
        fees = tuple(self._fees(tenant, model, prompt_tokens, now_s))
        waits_s = [fee.bucket.wait_s(fee.amount, now_s) for fee in fees]
        longest_s = max(waits_s)
        if longest_s > 0:
            fee = fees[waits_s.index(longest_s)]
            return Refusal(fee.kind, fee.name, fee.bucket.per_s, longest_s)
        for fee in fees:
            fee.bucket.take(fee.amount, now_s)
        return None

    def generated(self, tenant: str, model: str, tokens: int, now_s: float) -> None:
        """Charge output, whether there is enough left for it or not."""
        self._tenant(tenant, now_s).tokens.owe(tokens, now_s)
        self._model(model).tokens.owe(tokens, now_s)

    def _fees(self, tenant: str, model: str, prompt_tokens: int, now_s: float) -> Iterator[Fee]:
        account = self._tenant(tenant, now_s)
        yield Fee(LimitKind.TENANT_REQUESTS, tenant, account.requests, 1)
        yield Fee(LimitKind.TENANT_TOKENS, tenant, account.tokens, prompt_tokens)
        account = self._model(model)
        yield Fee(LimitKind.MODEL_REQUESTS, model, account.requests, 1)
        yield Fee(LimitKind.MODEL_TOKENS, model, account.tokens, prompt_tokens)

    def _tenant(self, name: str, now_s: float) -> Account:
        return self._named.get(name) or self._others.of(name, now_s)

    def _model(self, name: str) -> Account:
        return self._models.get(name, self._unlimited)
