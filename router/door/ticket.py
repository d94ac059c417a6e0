"""A request at the door: what it wants, since when, and for which worker it is meant to wait."""

import math
from dataclasses import dataclass, field

from msgspec import structs

from tercet.ids import RequestId, WorkerId
from tercet.router.errand import Errand
from tercet.router.policy import Ask, Rank, WorkerView
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
    expected_s: float = NEVER_S
    """When its first token is predicted; never, for one without a plan."""
    first_s: float | None = None
    """When that came."""
    begun: bool = False
    """A worker was sent it before: it has paid for its turn, and its client has waited or seen tokens already."""

    @property
    def id(self) -> RequestId:
        return self.errand.spec.id

    @property
    def work_tokens(self) -> int:
        """What its worker would have to compute."""
        assert self.route is not None, f"{self.id} is not planned"
        return self.route.miss_tokens

    @property
    def tokens(self) -> int:
        """Length of the prompt and of the output so far."""
        return len(self.errand.spec.prompt) + self.output_tokens

    @property
    def turn(self) -> tuple[int, float, float]:
        """Who has the lower one goes first where all that counts is rank."""
        return -self.rank.priority, self.rank.tag, self.entered_s

    @property
    def seconds(self) -> tuple[WorkerId, ...]:
        """The other one of its pair, if its policy looked at a pair."""
        if self.route is None or self.route.choice.considered != 2:
            return ()
        workers = (scored.view.worker for scored in self.route.choice.candidates)
        return tuple(worker for worker in workers if worker != self.worker)

    @property
    def choices(self) -> tuple[WorkerId, ...]:
        """Who may have it at once: where it waits, and the other one of its pair."""
        return (self.worker, *self.seconds) if self.route is not None else ()

    @property
    def view(self) -> WorkerView:
        """Of its worker, as it looked when this was planned."""
        assert self.route is not None, f"{self.id} is not planned"
        return self.route.view

    @property
    def worker(self) -> WorkerId:
        """Where it waits."""
        return self.view.worker

    def again(self, output_tokens: int, exclude: frozenset[WorkerId], now_s: float) -> None:
        """It asks (again) for a worker. Tokens that came since the last time are a new beginning: it may wait as long as at
        first, and its next token is wanted as soon as its first one was."""
        if output_tokens > self.output_tokens:
            passed_s = now_s - self.entered_s
            self.entered_s, self.give_up_s = now_s, self.give_up_s + passed_s
            self.rank = structs.replace(self.rank, due_s=self.rank.due_s + passed_s)
        self.output_tokens, self.exclude = output_tokens, exclude

    def ask(self, now_s: float) -> Ask:
        return self.errand.ask(self.output_tokens, now_s, self.rank)
