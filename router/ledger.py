"""What this front door has sent and the workers' reports do not show yet.

A report is up to a period old, and a burst that is routed by old reports all goes to one worker. So every dispatch counts
from the moment it is decided, until a report must have seen it; and a prompt whose first token is here counts no more,
although the last report still says so. Knows nothing of links and clocks; a slot is the only way in, and it closes itself.
"""

from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import msgspec

from tercet.ids import Incarnation, WorkerId
from tercet.wire import Endpoint, LoadReport

SETTLE_S = 0.05
"""A report that arrives so long after a dispatch was sent was written with knowledge of it."""

Life = tuple[WorkerId, Incarnation]


def life_of(endpoint: Endpoint) -> Life:
    """What accounts are kept by: a restarted worker begins with an empty one."""
    return endpoint.worker, endpoint.incarnation


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What is known of a worker: its last report, corrected by what we know better."""

    pending_tokens: int
    """Prompt tokens it still has to compute."""
    context_tokens: int
    """Sum of the lengths of the requests there: of all front doors' by its report, or of ours if that is more."""
    outstanding: int
    """Our requests that it may still hold."""
    unreported_requests: int
    """By what its report is to be corrected; negative when more is over than began since."""
    unreported_context_tokens: int
    """The same of their lengths."""


class Charge(msgspec.Struct, eq=False, gc=False):
    """One dispatch to one worker. Like a slot it is no business of the garbage collector's, whose pauses grow with what is
    kept for a request."""

    life: Life
    tokens: int
    """Prompt tokens the worker was thought to have to compute."""
    context_tokens: int
    """Length of the sequence it has to keep."""
    at_s: float
    seen: bool = False
    """A report came since, which may or may not count it."""
    reported: bool = False
    """A report came that surely counts it."""
    prefilled: bool = False


@dataclass(slots=True)
class Account:
    """One life of a worker."""

    charges: set[Charge] = field(default_factory=set)
    unsettled: set[Charge] = field(default_factory=set)
    """Those of them that no report surely counts: all that a report has to look at."""
    unreported_tokens: int = 0
    """Sent, not prefilled, and in no report yet."""
    overreported_tokens: int = 0
    """Prefilled or dropped since the last report, which still counts them."""
    begun_tokens: int = 0
    """Of the first of these to be prefilled: of it the report counts only what was not computed yet."""
    context_tokens: int = 0
    """Of all open charges."""
    overreported_context_tokens: int = 0
    """Of charges struck since the last report, which may still count them."""
    overreported_requests: int = 0
    """The number of those charges."""
    unreported_context_tokens: int = 0
    """Of those that are not settled."""

    @property
    def empty(self) -> bool:
        """Nothing is open, and the last report needs no correction."""
        overreported = self.overreported_tokens or self.overreported_requests
        return not (self.charges or overreported)

    def enter(self, charge: Charge) -> None:
        self.charges.add(charge)
        self.unsettled.add(charge)
        self.unreported_tokens += charge.tokens
        self.context_tokens += charge.context_tokens
        self.unreported_context_tokens += charge.context_tokens

    def strike(self, charge: Charge) -> None:
        """The worker has nothing of it any more."""
        self._settle(charge)
        self.charges.remove(charge)
        self.context_tokens -= charge.context_tokens
        if not charge.reported:
            self._is_reported(charge)
        if charge.seen:
            self.overreported_context_tokens += charge.context_tokens
            self.overreported_requests += 1

    def prefilled(self, charge: Charge) -> None:
        """Nothing of the charge is pending any more; idempotent."""
        if charge.reported and not charge.prefilled and not self.begun_tokens:
            self.begun_tokens = charge.tokens
        self._settle(charge)

    def _settle(self, charge: Charge) -> None:
        if charge.prefilled:
            return
        charge.prefilled = True
        if charge.reported:
            self.overreported_tokens += charge.tokens
        else:
            self.unreported_tokens -= charge.tokens

    def reconcile(self, now_s: float) -> None:
        """A report arrived: it is right about everything sent before `now_s - SETTLE_S`."""
        self.nothing_overreported()
        for charge in list(self.unsettled):
            charge.seen = True
            if charge.at_s <= now_s - SETTLE_S:
                charge.reported = True
                self._is_reported(charge)
                if not charge.prefilled:
                    self.unreported_tokens -= charge.tokens

    def nothing_overreported(self) -> None:
        """There is a new report, or none any more."""
        self.overreported_tokens = self.overreported_context_tokens = self.begun_tokens = 0
        self.overreported_requests = 0

    def _is_reported(self, charge: Charge) -> None:
        self.unsettled.remove(charge)
        self.unreported_context_tokens -= charge.context_tokens


class Ledger:
    """All accounts. Invariant: when no slot is open, every account is empty."""

    def __init__(self) -> None:
        self._accounts: dict[Life, Account] = {}

    def slot(self) -> "Slot":
        """A request's place in the ledger, to be used as a context; whatever it still owes at the end is struck out."""
        return Slot(self)

    def reconcile(self, worker: Endpoint, now_s: float) -> None:
        """A load report of `worker` has just arrived."""
        life = life_of(worker)
        account = self._accounts.get(life)
        if account is not None:
            account.reconcile(now_s)
            self._tidy(life, account)

    def forget(self, worker: Endpoint) -> None:
        """This life of the worker is over; open charges are still struck out by their slots."""
        account = self._accounts.get(life_of(worker))
        if account is not None:
            account.nothing_overreported()
            self._tidy(life_of(worker), account)

    def pending_tokens(
        self, worker: Endpoint, report: LoadReport | None, computed_tokens: int = 0
    ) -> int:
        """Prompt tokens the worker still has to compute: what it reported, corrected by what we know better.

        `computed_tokens` is what it can have computed since its report, 0 if its speed is not known. Ours that came back are
        among them, but the first one may have been computed in part before.
        """
        reported = report.pending_prefill_tokens if report is not None else 0
        account = self._accounts.get(life_of(worker))
        return _pending_tokens(account, reported, computed_tokens)

    def standing(
        self, worker: Endpoint, report: LoadReport | None, computed_tokens: int = 0
    ) -> Standing:
        """All of it; `computed_tokens` as above."""
        pending = reported = 0
        if report is not None:
            pending, reported = report.pending_prefill_tokens, report.context_tokens
        account = self._accounts.get(life_of(worker))
        pending = _pending_tokens(account, pending, computed_tokens)
        if account is None:
            return Standing(pending, reported, 0, 0, 0)
        return Standing(
            pending,
            max(reported - account.overreported_context_tokens, account.context_tokens),
            len(account.charges),
            len(account.unsettled) - account.overreported_requests,
            account.unreported_context_tokens - account.overreported_context_tokens,
        )

    def outstanding(self, worker: Endpoint) -> int:
        """Our requests that the worker may still hold."""
        account = self._accounts.get(life_of(worker))
        return len(account.charges) if account is not None else 0

    @property
    def charges(self) -> int:
        """Dispatches open now, over all workers."""
        return sum(len(account.charges) for account in self._accounts.values())

    def validate(self) -> None:
        """Assert that the sums are the sums of their parts."""
        for life, account in self._accounts.items():
            open_tokens = sum(
                charge.tokens
                for charge in account.charges
                if not (charge.reported or charge.prefilled)
            )
            assert account.unreported_tokens == open_tokens, (life, account)
            assert account.overreported_tokens >= 0, (life, account)
            contexts = sum(charge.context_tokens for charge in account.charges)
            assert account.context_tokens == contexts, (life, account)
            unreported = [charge for charge in account.charges if not charge.reported]
            assert account.unsettled == set(unreported), (life, account)
            contexts = sum(charge.context_tokens for charge in unreported)
            assert account.unreported_context_tokens == contexts, (life, account)

    def _enter(self, charge: Charge) -> None:
        self._accounts.setdefault(charge.life, Account()).enter(charge)

    def _prefilled(self, charge: Charge) -> None:
        self._accounts[charge.life].prefilled(charge)

    def _strike(self, charge: Charge) -> None:
        account = self._accounts[charge.life]
        account.strike(charge)
        self._tidy(charge.life, account)

    def _tidy(self, life: Life, account: Account) -> None:
        if account.empty:
            del self._accounts[life]


def _pending_tokens(account: Account | None, reported: int, computed_tokens: int) -> int:
    if account is None:
        return max(0, reported - computed_tokens)
    over_tokens = account.overreported_tokens
    if computed_tokens:
        over_tokens = max(over_tokens - account.begun_tokens, computed_tokens)
    return max(0, reported - over_tokens) + account.unreported_tokens


class Slot(msgspec.Struct, eq=False, gc=False):
    """The charges of one request; leaving its context strikes out what is left, on every path."""

    _ledger: Ledger
    _charges: dict[Life, Charge] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for life in list(self._charges):
            self._strike(life)

    def charge(self, worker: Endpoint, *, tokens: int, context_tokens: int, now_s: float) -> None:
        """The request is being sent to `worker`, which will have to compute about `tokens` (none if it pulls them)."""
        self.strike(worker)
        charge = Charge(life_of(worker), tokens, context_tokens, now_s)
        self._charges[charge.life] = charge
        self._ledger._enter(charge)

    def prefilled(self, worker: Endpoint) -> None:
        """The request's prompt is done there."""
        charge = self._charges.get(life_of(worker))
        if charge is not None:
            self._ledger._prefilled(charge)

    def strike(self, worker: Endpoint) -> None:
        """The worker has nothing of the request any more; idempotent."""
        self._strike(life_of(worker))

    def _strike(self, life: Life) -> None:
        charge = self._charges.pop(life, None)
        if charge is not None:
            self._ledger._strike(charge)
