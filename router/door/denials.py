"""Why somebody is sent away, and when it is worth while to come again."""

from tercet.errors import NoWorkers, Overloaded, Unavailable
from tercet.role import Role
from tercet.router.dispatch import Dispatch
from tercet.router.door.departures import Departures, bounded_retry_s
from tercet.router.door.early import DecodeLoad, Early, Ours
from tercet.router.door.outlook import Outlook
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.policy import Ask

REPORTS_S = 0.05
"""Reports are added up so often; each is up to a report period old anyway."""


class Denials:
    """Writes them; sends nobody away."""

    def __init__(self, dispatch: Dispatch, outlook: Outlook, itl_s_max: float) -> None:
        self._dispatch, self._outlook = dispatch, outlook
        self._departures = Departures()
        self._early = Early(itl_s_max) if itl_s_max < NEVER_S else None
        self._load, self._load_at_s = DecodeLoad.of((), ()), -NEVER_S

    def departed(self, ticket: Ticket, now_s: float) -> None:
        """The request is over, and its place is free."""
        self._departures.add(now_s)
        if self._early is not None and ticket.first_s is not None:
            self._early.durations.add(now_s - ticket.first_s)

    def of_comer(self, ticket: Ticket, ask: Ask, ours: Ours) -> Unavailable | None:
        """Nobody is predicted to begin before the answer is of no use, or to decode it fast enough; or it is back, and has
        waited enough."""
        if ticket.begun:
            impatient = ticket.give_up_s <= ask.at_s
            return self.of_impatient(ticket, len(ours.held), ask.at_s) if impatient else None
        if ticket.route is None:
            return None
        late = self._too_late(ticket, ask) if ticket.deadline_s < NEVER_S else None
        if late is not None or self._early is None:
            return late
        first_s = ask.at_s + self._outlook.first_token_s(ask, ticket.view)
        return self._early.objection(first_s, self._decode_load(ask.at_s), ours, ask.at_s)

    def _too_late(self, ticket: Ticket, ask: Ask) -> Unavailable | None:
        """Whoever is predicted to begin in time gets it, whatever the policy says."""
        left_s = ticket.deadline_s - ask.at_s
        if self._outlook.first_token_s(ask, ticket.view) <= left_s:
            return None
        assert ticket.route is not None, f"{ticket.id} is not planned"
        ticket.route = self._dispatch.earliest(ask, ticket.route, ticket.exclude)
        late_s = self._outlook.first_token_s(ask, ticket.view) - left_s
        if late_s <= 0:
            return None
        reason = f"the first token is predicted {late_s:.2f} s after the deadline"
        return Overloaded(reason, bounded_retry_s(late_s))

    def _decode_load(self, now_s: float) -> DecodeLoad:
        if now_s - self._load_at_s >= REPORTS_S:
            reports = self._dispatch.sight.reports
            self._load = DecodeLoad.of(reports(Role.DECODE), reports(Role.PREFILL))
            self._load_at_s = now_s
        return self._load

    def of_impatient(self, ticket: Ticket, queued: int, now_s: float) -> Unavailable:
        """It has waited as long as one may."""
        retry_s = self._departures.retry_after_s(queued, now_s)
        if ticket.route is None:
            return NoWorkers(self._dispatch.why_none(), retry_s)
        waited_s = now_s - ticket.entered_s
        return Overloaded(f"no worker could begin within {waited_s:.1f} s", retry_s)

    def of_one_too_many(self, queued: int, now_s: float) -> Unavailable:
        return Overloaded("the queue is full", self._departures.retry_after_s(queued, now_s))
