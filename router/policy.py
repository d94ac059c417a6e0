"""Filter → score → pick: how one worker is chosen among those that can be seen.

The verbs and the plain data they pass. Policies decide from a frozen picture of each worker; they send nothing, read no
clock, and roll dice only with the generator they were given. The unit of every cost is the token, so costs add up.
`Policy` looks at everybody; a chooser that can name its candidates looks at them only.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import msgspec

from tercet.ids import RequestId, WorkerId
from tercet.router.prefix_names import PrefixName
from tercet.wire import Endpoint, LoadReport


class Rank(msgspec.Struct, frozen=True, gc=False):
    """Who may be served before whom while requests wait at the door."""

    priority: int = 0
    """Higher goes first, whatever it costs the others."""
    tenant: str = ""
    tag: float = 0.0
    """The tenant's virtual time when the request came, in tokens: see `tercet.router.door.fairness`."""
    due_s: float = math.inf
    """When the first token is wanted."""


class Ask(msgspec.Struct, frozen=True, gc=False):
    """What a policy may know of the request that wants a worker."""

    request: RequestId
    tokens: int
    """Length of the prompt and of the output so far."""
    priority: int = 0
    session: str = ""
    """The client's name for a conversation; empty when it gave none."""
    names: Sequence[PrefixName] = ()
    """One for each full block of the prompt: the name of everything up to its end."""
    block_tokens: int = 16
    at_s: float = 0.0
    """Now, on a clock that only runs forward."""
    rank: Rank = Rank()


class WorkerView(msgspec.Struct, frozen=True, gc=False):
    """One worker as the front door sees it now."""

    endpoint: Endpoint
    report: LoadReport | None
    """The last one; None from a worker that has just connected."""
    report_age_s: float
    suspect: bool
    """Its reports are late: no new work until one comes."""
    pending_tokens: int
    """Prompt tokens it has accepted or was sent but has not computed: its report, corrected by our own ledger."""
    load_tokens: int
    """Work ahead of or beside a new request: pending and held tokens, and on a decode worker the contexts it decodes."""
    outstanding: int
    """Our own requests that it may still hold."""
    hit_tokens: int = 0
    """Leading tokens of this request whose KV it probably has."""
    held_tokens: int = 0
    """Prompt tokens that wait at this door for it and would be sent before the request."""
    unreported_requests: int = 0
    """Our requests there that the report does not show yet, less those it still shows and that are over."""
    unreported_context_tokens: int = 0
    """The sum of their contexts, by which the report's figures are to be corrected."""

    @property
    def worker(self) -> WorkerId:
        return self.endpoint.worker

    @property
    def ahead_tokens(self) -> int:
        """Prompt tokens that would be computed before the request's own."""
        return self.pending_tokens + self.held_tokens

    def miss_tokens(self, ask: Ask) -> int:
        """What it would have to compute or pull; never less than the last token."""
        return max(1, ask.tokens - self.hit_tokens)


class Scored(msgspec.Struct, frozen=True, gc=False):
    """A candidate and what it would cost, in tokens; less is better."""

    view: WorkerView
    cost_tokens: float
    predicted_ttft_s: float | None = None
    """From the dispatch on; None where the policy does not predict."""


_cost_tokens = attrgetter("cost_tokens")


class Choice(msgspec.Struct, frozen=True, gc=False):
    """The worker chosen, and why: the costs of all candidates it was compared with."""

    view: WorkerView
    candidates: tuple[Scored, ...]
    reason: str = ""
    """In one word, where the policy has several reasons; empty where the costs say everything."""
    left_out: int = 0
    """Candidates that are listed no more."""

    @property
    def considered(self) -> int:
        """How many candidates there were."""
        return len(self.candidates) + self.left_out

    def shortened(self, most: int) -> "Choice":
        """With the one chosen first, and then the cheapest others."""
        chosen = self.view.worker
        own = [scored for scored in self.candidates if scored.view.worker == chosen]
        others = (scored for scored in self.candidates if scored.view.worker != chosen)
        kept = own + sorted(others, key=_cost_tokens)[: most - len(own)]
        return msgspec.structs.replace(
            self, candidates=tuple(kept), left_out=self.considered - len(kept)
        )


class Pool(Protocol):
    """The workers of one pool, for one request. Each view is made when it is first asked for."""

    @property
    def members(self) -> frozenset[WorkerId]:
        """Who belongs to it, usable at the moment or not; the same object as long as nobody joins or leaves."""

    def find(self, worker: WorkerId) -> WorkerView | None:
        """The view of one worker; None while it may not be asked."""

    def nearest(self, beyond_tokens: float = 0) -> Iterator[WorkerView]:
        """Who probably has more than so much of the request cached and may be asked: the last worker of its conversation, then
        the others, who has most first. Ends with the first one that has not; costs next to nothing if there is nobody."""

    def __iter__(self) -> Iterator[WorkerView]:
        """Everybody who may be asked."""


class Chooser(Protocol):
    """Chooses one worker of a pool; None when nobody suits. Has its own memory, so there is one for each pool."""

    def choose(self, ask: Ask, pool: Pool) -> Choice | None: ...


class Filter(Protocol):
    """Says which workers may be asked at all."""

    def keep(self, ask: Ask, view: WorkerView) -> bool: ...


class Score(Protocol):
    """Gives each candidate its cost in tokens; less is better."""

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float: ...


class Pick(Protocol):
    """Takes one of at least one scored candidates."""

    def pick(self, candidates: Sequence[Scored]) -> Scored: ...


class Dice(Protocol):
    """Randomness as the policies need it; `random.Random` is one."""

    def randrange(self, stop: int, /) -> int: ...


class NotSuspect:
    """Keeps workers whose reports come in time."""

    def keep(self, ask: Ask, view: WorkerView) -> bool:
        return not view.suspect


class Free:
    """Costs nothing: for picks that do not look at costs."""

    def cost_tokens(self, ask: Ask, view: WorkerView) -> float:
        return 0.0


class LowestCost:
    """The cheapest candidate; among equals the one whose last turn was longest ago, so that ties spread."""

    def __init__(self) -> None:
        self._turns = 0
        self._last_turn: dict[WorkerId, int] = {}

    def pick(self, candidates: Sequence[Scored]) -> Scored:
        def rank(scored: Scored) -> tuple[float, int]:
            return scored.cost_tokens, self._last_turn.get(scored.view.worker, 0)

        best = min(candidates, key=rank)
        self._turns += 1
        self._last_turn[best.view.worker] = self._turns
        return best


@dataclass(frozen=True, slots=True)
class Policy:
    """Filters, one score, one pick: everything that distinguishes policies is which of these they put together."""

    filters: tuple[Filter, ...]
    score: Score
    pick: Pick

    def choose(self, ask: Ask, pool: Iterable[WorkerView]) -> Choice | None:
        """One of `pool`; None when no filter lets any of them pass."""
        views = list(pool)
        for rule in self.filters:
            views = [view for view in views if rule.keep(ask, view)]
        scored = tuple([Scored(view, self.score.cost_tokens(ask, view)) for view in views])
        return Choice(self.pick.pick(scored).view, scored) if scored else None
