"""A request at the door: what it wants, since when, and for which worker it is meant to wait."""

import math
from dataclasses import dataclass, field

from tercet.ids import RequestId, WorkerId
from tercet.router.errand import Errand
from tercet.router.policy import Ask, Rank
from tercet.router.routes import Route

NEVER_S = math.inf
"""A time that does not come."""


@dataclass(eq=False, slots=True)
class Ticket:
    """One request between its arrival and its first dispatch, or between a refusal and the next dispatch."""

    errand: Errand
    rank: Rank
    entered_s: float
    give_up_s: float
    """When it has waited long enough."""
    deadline_s: float = NEVER_S
    """When the answer is of no use any more, if nobody is predicted to begin before."""
    output_tokens: int = 0
    exclude: frozenset[WorkerId] = field(default_factory=frozenset)
    route: Route | None = None
    """The plan: made with what was known when it was planned."""
    latest_s: float = NEVER_S
    """When its prefill must begin to be in time; never, for one that is too late anyway."""

    @property
    def id(self) -> RequestId:
        return self.errand.spec.id

    @property
    def work_tokens(self) -> int:
        """What its worker would have to compute."""
        assert self.route is not None, f"{self.id} is not planned"
        return self.route.miss_tokens

    @property
    def worker(self) -> WorkerId:
        """Where it waits."""
        assert self.route is not None, f"{self.id} is not planned"
        return self.route.view.worker

    def ask(self, now_s: float) -> Ask:
        return self.errand.ask(self.output_tokens, now_s, self.rank)
