"""When those who wait would have their first tokens, where they stand and elsewhere."""

from tercet.ids import WorkerId
from tercet.router.dispatch import Detour, Dispatch
from tercet.router.door.closures import Closures
from tercet.router.door.line import Line
from tercet.router.door.lines import Lines
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.forecast import prefill_s
from tercet.router.policy import Ask
from tercet.router.routes import Route

AGAIN_PRICE = 3.0
"""Seconds that one who changes workers must gain for each second of prefill that is done again for it. Measured on Mooncake's
conversation trace near saturation: with 0 a tenth of the hits is lost, above 10 nobody moves who could."""


class Outlook:
    """Predicts; changes nothing."""

    def __init__(self, dispatch: Dispatch, lines: Lines, closures: Closures) -> None:
        self._dispatch, self._lines, self._closures = dispatch, lines, closures

    def begins_soon(self, route: Route, ahead_s: float) -> bool:
        """Whether its worker has no more than this to do."""
        return self._pending_s(route) <= ahead_s

    def first_token_s(self, ask: Ask, route: Route) -> float:
        """Seconds until the first token of somebody who comes now and is planned so."""
        delay_s = self._starts_in_s(route, ask.at_s) - self._pending_s(route)
        return self._dispatch.predict_s(ask, route.view) + delay_s

    def late_ones(self, line: Line, now_s: float) -> list[tuple[Ticket, bool]] | None:
        """Whether each who stands there is predicted to be late; None while the worker may not be asked."""
        first = line.first()
        assert first.route is not None, f"{first.id} is not planned"
        route = self._dispatch.at(first.ask(now_s), first.route, first.worker)
        if route is None:
            return None
        coefficients = self._dispatch.sight.coefficients(route.view)
        starts_s, found = now_s + self._starts_in_s(route, now_s), []
        for ticket in line:
            end_s = starts_s + prefill_s(ticket.work_tokens, ticket.tokens, coefficients)
            found.append((ticket, end_s > ticket.rank.due_s))
            starts_s += coefficients[1] * ticket.work_tokens
        return found

    def gain_s(self, ticket: Ticket, worker: WorkerId, now_s: float, *, late: bool) -> float:
        """How much sooner its first token would be with an idle worker than where it stands, less what others pay for it.

        What its own worker has cached must be computed again. Only to be in time is worth that without further question. At
        most 0 if that worker may not have it, or if it would then be too late and is not now.
        """
        ask, route = ticket.ask(now_s), ticket.route
        assert route is not None, f"{ticket.id} is not planned"
        here = None if worker in ticket.exclude else self._dispatch.at(ask, route, worker)
        if here is None:
            return 0.0
        here_s = self._dispatch.predict_s(ask, here.view)
        in_time = now_s + here_s <= ask.rank.due_s
        if not in_time and not late:
            return 0.0
        there = self._dispatch.at(ask, route, ticket.worker)
        if there is None:
            return NEVER_S
        sooner_s = self._in_line_s(ticket, there, now_s) - here_s
        if in_time and late:
            return sooner_s
        token_s = self._dispatch.sight.coefficients(here.view)[1]
        return sooner_s - AGAIN_PRICE * token_s * max(0, here.miss_tokens - there.miss_tokens)

    def with_worker(self, ticket: Ticket, worker: WorkerId, now_s: float) -> Route | None:
        """Its plan with the worker that is going to be sent it, as that one looks now; None while it may not be asked."""
        assert ticket.route is not None, f"{ticket.id} is not planned"
        detour = None if worker == ticket.worker else Detour.DRAWN
        return self._dispatch.at(ticket.ask(now_s), ticket.route, worker, detour)

    def _in_line_s(self, ticket: Ticket, route: Route, now_s: float) -> float:
        line = self._lines.of(ticket.worker)
        assert line is not None, f"{ticket.id} stands in no line"
        coefficients = self._dispatch.sight.coefficients(route.view)
        ahead_s = coefficients[1] * line.tokens_before(ticket)
        own_s = prefill_s(ticket.work_tokens, ticket.tokens, coefficients)
        return self._starts_in_s(route, now_s) + ahead_s + own_s

    def _starts_in_s(self, route: Route, now_s: float) -> float:
        """Seconds until its worker takes the first one of its line."""
        closed_s = self._closures.left_s(route.view.worker, now_s)
        return max(self._pending_s(route), closed_s)

    def _pending_s(self, route: Route) -> float:
        view = route.view
        return view.pending_tokens * self._dispatch.sight.coefficients(view)[1]
