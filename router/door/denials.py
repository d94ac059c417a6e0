"""Why somebody is sent away, and when it is worth while to come again."""

from tercet.errors import NoWorkers, Overloaded, Unavailable
from tercet.router.dispatch import Dispatch
from tercet.router.door.departures import Departures, bounded_retry_s
from tercet.router.door.outlook import Outlook
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.policy import Ask


class Denials:
    """Writes them; sends nobody away."""

    def __init__(self, dispatch: Dispatch, outlook: Outlook) -> None:
        self._dispatch, self._outlook = dispatch, outlook
        self._departures = Departures()

    def departed(self, now_s: float) -> None:
        """Somebody's place is free."""
        self._departures.add(now_s)

    def of_newcomer(self, ticket: Ticket, ask: Ask) -> Unavailable | None:
        """Nobody is predicted to begin before the answer is of no use. Whoever is, gets it, whatever the policy says."""
        if ticket.deadline_s == NEVER_S or ticket.route is None:
            return None
        left_s = ticket.deadline_s - ask.at_s
        if self._outlook.first_token_s(ask, ticket.view) <= left_s:
            return None
        ticket.route = self._dispatch.earliest(ask, ticket.route, ticket.exclude)
        late_s = self._outlook.first_token_s(ask, ticket.view) - left_s
        if late_s <= 0:
            return None
        reason = f"the first token is predicted {late_s:.2f} s after the deadline"
        return Overloaded(reason, bounded_retry_s(late_s))

    def of_impatient(self, ticket: Ticket, queued: int, now_s: float) -> Unavailable:
        """It has waited as long as one may."""
        retry_s = self._departures.retry_after_s(queued, now_s)
        if ticket.route is None:
            return NoWorkers(self._dispatch.why_none(), retry_s)
        waited_s = now_s - ticket.entered_s
        return Overloaded(f"no worker could begin within {waited_s:.1f} s", retry_s)

    def of_one_too_many(self, queued: int, now_s: float) -> Unavailable:
        return Overloaded("the queue is full", self._departures.retry_after_s(queued, now_s))
