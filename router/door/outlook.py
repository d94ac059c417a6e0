"""When those who wait would have their first tokens, where they stand and elsewhere."""

from collections.abc import Iterable

from tercet.ids import WorkerId
from tercet.router.dispatch import Detour, Dispatch
from tercet.router.door.closures import Closures
from tercet.router.door.line import Line
from tercet.router.door.lines import Lines
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.forecast import prefill_s
from tercet.router.policy import Ask, WorkerView
from tercet.router.routes import Route

AGAIN_PRICE = 3.0
"""Seconds that one who changes workers must gain for each second of prefill that is done again for it. Measured on Mooncake's
conversation trace near saturation: with 0 a tenth of the hits is lost, above 10 nobody moves who could."""


class Outlook:
    """Predicts; changes nothing."""

    def __init__(self, dispatch: Dispatch, lines: Lines, closures: Closures) -> None:
        self._dispatch, self._sight = dispatch, dispatch.sight
        self._lines, self._closures = lines, closures

    def begins_soon(self, ticket: Ticket, worker: WorkerId, now_s: float, ahead_s: float) -> bool:
        """Whether the worker, which is of the pool that the ticket is planned for, has no more than this to do."""
        pending_s = self._sight.pending_s(ticket.view.endpoint.role, worker, now_s)
        return pending_s is not None and pending_s <= ahead_s

    def first_token_s(self, ask: Ask, view: WorkerView) -> float:
        """Seconds until the first token of somebody who comes now and is planned for that worker."""
        pending_s = view.pending_tokens * self._sight.coefficients(view)[1]
        closed_s = self._closures.left_s(view.worker, ask.at_s)
        return self._dispatch.predict_s(ask, view) + max(0.0, closed_s - pending_s)

    def first_tokens(self, line: Line, now_s: float) -> list[tuple[Ticket, float]] | None:
        """When the first token of each who stands there is predicted; None while the worker may not be asked."""
        starts_in_s = self._starts_in_s(line.first(), now_s)
        if starts_in_s is None:
            return None
        coefficients = self._sight.coefficients(line.first().view)
        starts_s, found = now_s + starts_in_s, []
        for ticket in line:
            own_s = prefill_s(ticket.work_tokens, ticket.tokens, coefficients)
            found.append((ticket, starts_s + own_s))
            starts_s += coefficients[1] * ticket.work_tokens
        return found

    def most_helped(
        self, strays: Iterable[tuple[Ticket, bool]], worker: WorkerId, now_s: float
    ) -> Ticket | None:
        """Of those whom the idle worker may draw, and of these of the highest priority: who gains most by it."""
        best, most = None, (0, 0.0)
        for ticket, late in strays:
            gain_s = self._gain_s(ticket, worker, now_s, late=late)
            gain = ticket.rank.priority, gain_s
            if gain_s > 0 and (best is None or gain > most):
                best, most = ticket, gain
        return best

    def _gain_s(self, ticket: Ticket, worker: WorkerId, now_s: float, *, late: bool) -> float:
        """How much sooner its first token would be with an idle worker than where it stands, less what others pay for it.

        What its own worker has cached must be computed again. Only to be in time is worth that without further question. At
        most 0 if that worker may not have it, or if it would then be too late and is not now.
        """
        ask, route = ticket.ask(now_s), ticket.route
        assert route is not None, f"{ticket.id} is not planned"
        here = None if worker in ticket.exclude else self._dispatch.next_at(ask, route, worker)
        if here is None:
            return 0.0
        here_s = self._dispatch.predict_s(ask, here)
        in_time = now_s + here_s <= ask.rank.due_s
        if not in_time and not late:
            return 0.0
        sooner_s = self._there_s(ticket, now_s) - here_s
        if in_time and late:
            return sooner_s
        again_tokens = max(0, here.miss_tokens(ask) - ticket.work_tokens)
        return sooner_s - AGAIN_PRICE * self._sight.coefficients(here)[1] * again_tokens

    def with_worker(self, ticket: Ticket, worker: WorkerId, now_s: float) -> Route | None:
        """Its plan with the worker that is going to be sent it, as that one looks now; None while it may not be asked."""
        assert ticket.route is not None, f"{ticket.id} is not planned"
        detour = None if worker == ticket.worker else Detour.DRAWN
        return self._dispatch.at(ticket.ask(now_s), ticket.route, worker, detour)

    def _there_s(self, ticket: Ticket, now_s: float) -> float:
        """Seconds until its first token where it stands."""
        starts_in_s, line = self._starts_in_s(ticket, now_s), self._lines.of(ticket.worker)
        assert line is not None, f"{ticket.id} stands in no line"
        if starts_in_s is None:
            return NEVER_S
        coefficients = self._sight.coefficients(ticket.view)
        ahead_s = coefficients[1] * line.tokens_before(ticket)
        return starts_in_s + ahead_s + prefill_s(ticket.work_tokens, ticket.tokens, coefficients)

    def _starts_in_s(self, ticket: Ticket, now_s: float) -> float | None:
        """Seconds until its worker takes the first one of its line; None while it may not be asked."""
        endpoint = ticket.view.endpoint
        pending_s = self._sight.pending_s(endpoint.role, endpoint.worker, now_s)
        closed_s = self._closures.left_s(endpoint.worker, now_s)
        return None if pending_s is None else max(pending_s, closed_s)
