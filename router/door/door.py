"""The queue at the door: requests wait here, not at workers, until one that suits them can begin soon.

    enter ──► plan (policy) ──► line of that worker ──► sent, when the worker has little left to do
      ▲           │  nobody may be asked: lobby            │ refused: its report is news, plan again
      └───────────┴────────────────────────────────────────┘
                  predicted too late at everybody, waited too long, too many: turned away, with a time to come again

What waits here can still be ordered, cancelled and given to another worker, and no worker's queue depends on how old our
knowledge of it is: a worker with too much to do refuses (P/D-Serve, arXiv 2408.08147), and says how much that is.
Pure: events in, verdicts out; times and dice come from outside.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tercet.errors import NoWorkers, Overloaded, Unavailable
from tercet.ids import WorkerId
from tercet.router.dispatch import Dispatch
from tercet.router.door.departures import Departures, bounded_retry_s
from tercet.router.door.fairness import FairShare
from tercet.router.door.lines import Lines
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.policy import Ask, Dice
from tercet.router.routes import Route

CHECK_S = 0.25
"""While somebody waits, lines are looked through so often: workers may have become suspect, and patience ends."""
CLOSED_S_MIN = 0.01
"""A worker that refused is left alone for at least about this long."""
AGAIN_PRICE = 3.0
"""Seconds that one who changes workers must gain for each second of prefill that is done again for it. Measured on Mooncake's
conversation trace near saturation: with 0 a tenth of the hits is lost, above 10 nobody moves who could."""
LOOK_MAX = 16
"""Tickets that an idle worker looks at in search of one that would begin sooner with it."""


@dataclass(frozen=True, slots=True)
class DoorRules:
    """How long and how many."""

    places: int
    """Requests that workers may have of this door at once."""
    queue_max: int
    ahead_s: float
    """A worker is sent more when what it still has to compute takes no longer than this."""


@dataclass(frozen=True, slots=True)
class Sent:
    """To be sent to the route's worker; it has been charged."""

    ticket: Ticket
    route: Route


@dataclass(frozen=True, slots=True)
class TurnedAway:
    """Nothing is kept of it here."""

    ticket: Ticket
    error: Unavailable


Verdict = Sent | TurnedAway


class Door:
    """One front door's queue. Everybody who enters leaves by `Sent` and then `done`, by `TurnedAway`, or by `leave`."""

    def __init__(
        self, dispatch: Dispatch, lines: Lines, rules: DoorRules, fair: FairShare, dice: Dice
    ) -> None:
        self._dispatch, self._lines, self._rules = dispatch, lines, rules
        self._fair, self._dice = fair, dice
        self._waiting: dict[Ticket, None] = {}
        """Everybody in a line or in the lobby, who came first first."""
        self._sent: set[Ticket] = set()
        self._closed_until_s: dict[WorkerId, float] = {}
        self._late: dict[Ticket, None] = {}
        """Those who wait and are predicted to begin too late where they are."""
        self._seconds: dict[WorkerId, dict[Ticket, None]] = {}
        """By the other one of their pair: those who wait for the first one."""
        self._departures = Departures()
        self.turned_away = 0
        """Since the start."""
        self.wake_at_s = NEVER_S
        """When `look` should be called if nothing happens before."""

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """Places taken."""
        return len(self._sent)

    # ---- events ------------------------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket, now_s: float) -> list[Verdict]:
        """Somebody came, for the first time or back from a worker that did not take it."""
        back = ticket in self._sent
        self._sent.discard(ticket)
        ask = ticket.ask(now_s)
        ticket.route = self._dispatch.plan(ask, ticket.exclude)
        if not back and (error := self._objection(ticket, ask)) is not None:
            return [self._turn_away(ticket, error)]
        self._line_up(ticket, ask)
        verdicts = self._serve(ticket.worker, now_s) if ticket.route else []
        if not back and ticket in self._waiting and len(self._waiting) > self._rules.queue_max:
            self.leave(ticket)
            retry_s = self._departures.retry_after_s(self.queued, now_s)
            verdicts.append(self._turn_away(ticket, Overloaded("the queue is full", retry_s)))
        return self._settled(verdicts, now_s)

    def leave(self, ticket: Ticket) -> None:
        """It is not wanted any more, wherever it is; idempotent."""
        if ticket in self._waiting:
            del self._waiting[ticket]
            self._late.pop(ticket, None)
            if ticket.route is not None:
                self._lines.leave(ticket)
                self._forget_second(ticket)

    def done(self, ticket: Ticket, now_s: float) -> list[Verdict]:
        """Its place is free, if it had one."""
        self.leave(ticket)
        if ticket not in self._sent:
            return []
        self._sent.remove(ticket)
        self._departures.add(now_s)
        return self.look(now_s) if len(self._sent) + 1 == self._rules.places else []

    def refused(self, worker: WorkerId, retry_after_s: float, now_s: float) -> None:
        """The worker has so much to do. It is asked again when that is little enough; not by everybody in the same moment."""
        jitter = 0.75 + self._dice.randrange(512) / 1024
        closed_s = max(CLOSED_S_MIN, retry_after_s - self._rules.ahead_s)
        self._closed_until_s[worker] = now_s + jitter * closed_s

    def news(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """Something is known of the worker that may let it begin with one more: a report, or a first token."""
        return self._settled(self._serve(worker, now_s), now_s) if self._waiting else []

    def look(self, now_s: float) -> list[Verdict]:
        """Time has passed, or anything may have changed: serve all lines, plan anew who waits for somebody not there."""
        verdicts: list[Verdict] = []
        for ticket in list(self._waiting):
            if ticket.give_up_s <= now_s:
                verdicts.append(self._lose_patience(ticket, now_s))
            elif not self._still_good(ticket, now_s):
                self._plan_again(ticket, now_s)
        for worker in [worker for worker, _ in self._lines]:
            verdicts += self._serve(worker, now_s)
        return self._settled(verdicts, now_s)

    def validate(self) -> None:
        """Assert that everybody is in one place."""
        in_lines = {ticket for _, line in self._lines for ticket in line}
        lobby = {ticket for ticket in self._waiting if ticket.route is None}
        assert in_lines | lobby == set(self._waiting), "a ticket is lost or forgotten"
        assert not in_lines & lobby
        assert not self._sent & set(self._waiting), "a ticket waits and is sent"
        assert set(self._late) <= set(self._waiting)
        seconds = {ticket for tickets in self._seconds.values() for ticket in tickets}
        assert seconds <= in_lines, "an idle worker would find somebody who has left"

    # ---- lines -------------------------------------------------------------------------------------------------------

    def _line_up(self, ticket: Ticket, ask: Ask) -> None:
        self._waiting[ticket] = None
        route = ticket.route
        if route is None:
            return
        self._lines.join(ticket, ask, route.view, self._dispatch.sight.coefficients(route.view))
        for scored in route.choice.candidates if len(route.choice.candidates) == 2 else ():
            if scored.view.worker != ticket.worker:
                self._seconds.setdefault(scored.view.worker, {})[ticket] = None
        if ask.at_s + self._dispatch.predict_s(ask, route.view) > ask.rank.due_s:
            self._late[ticket] = None

    def _plan_again(self, ticket: Ticket, now_s: float) -> None:
        """With everybody: who said no before is asked again after a while."""
        self.leave(ticket)
        ticket.exclude = frozenset()
        ask = ticket.ask(now_s)
        ticket.route = self._dispatch.plan(ask, ticket.exclude)
        self._line_up(ticket, ask)

    def _still_good(self, ticket: Ticket, now_s: float) -> bool:
        """Whether its worker may be asked at all. Predictions err, so it is also noted anew whether it will be late."""
        route, ask = ticket.route, ticket.ask(now_s)
        now = self._dispatch.at(ask, route, ticket.worker) if route is not None else None
        if now is None:
            return False
        self._late.pop(ticket, None)
        if now_s + self._first_token_s(ticket, ask, now) > ticket.rank.due_s:
            self._late[ticket] = None
        return True

    def _first_token_s(self, ticket: Ticket, ask: Ask, route: Route) -> float:
        """Seconds until its first token, from where it stands in its line; `route` is its plan with a fresh view."""
        line = self._lines.of(ticket.worker)
        assert line is not None, f"{ticket.id} stands in no line"
        coefficients = self._dispatch.sight.coefficients(route.view)
        return line.first_token_s(ticket, ask, route.view, coefficients)

    def _serve(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """Send to the worker while it can begin soon: who waits for it, then who would begin sooner with it."""
        verdicts: list[Verdict] = []
        while len(self._sent) < self._rules.places and self._closed_until_s.get(worker, 0) <= now_s:
            line = self._lines.of(worker)
            ticket = line.first() if line is not None else self._drawn_here(worker, now_s)
            if ticket is None:
                break
            ask = ticket.ask(now_s)
            assert ticket.route is not None
            route = self._dispatch.at(ask, ticket.route, worker)
            if route is None or not self._begins_soon(route):
                break
            self.leave(ticket)
            verdicts.append(self._send(ticket, ask, route))
        return verdicts

    def _begins_soon(self, route: Route) -> bool:
        token_s = self._dispatch.sight.coefficients(route.view)[1]
        return route.view.pending_tokens * token_s <= self._rules.ahead_s

    def _send(self, ticket: Ticket, ask: Ask, route: Route) -> Sent:
        self._dispatch.send(ticket.errand, ask, route)
        self._fair.served(ticket.rank.tag)
        self._sent.add(ticket)
        ticket.route = None
        return Sent(ticket, route)

    # ---- to another worker -------------------------------------------------------------------------------------------

    def _drawn_here(self, worker: WorkerId, now_s: float) -> Ticket | None:
        """Of those for whom this worker is the second choice, and of those who are late anyway: who gains most by it."""
        best, most_s = None, 0.0
        for ticket in self._might_come(worker):
            gain_s = self._gain_s(ticket, worker, now_s)
            if gain_s > most_s:
                best, most_s = ticket, gain_s
        return best

    def _might_come(self, worker: WorkerId) -> Iterator[Ticket]:
        looks = 0
        for tickets in (self._late, self._seconds.get(worker, {})):
            for ticket in tickets:
                looks += 1
                if looks > LOOK_MAX:
                    return
                yield ticket

    def _gain_s(self, ticket: Ticket, worker: WorkerId, now_s: float) -> float:
        """How much sooner its first token would be here, less what the cluster pays for it; at most 0 if it had better stay.

        What its own worker has cached must be computed again here, while others wait. Only to be in time is worth that
        without further question.
        """
        ask, route = ticket.ask(now_s), ticket.route
        assert route is not None
        there, here = (self._dispatch.at(ask, route, w) for w in (ticket.worker, worker))
        if here is None:
            return 0.0
        here_s = self._dispatch.predict_s(ask, here.view)
        if there is None:
            return NEVER_S
        there_s = self._first_token_s(ticket, ask, there)
        left_s = ask.rank.due_s - now_s
        if there_s > left_s:
            return there_s - here_s if here_s <= left_s else 0.0
        token_s = self._dispatch.sight.coefficients(here.view)[1]
        again_s = max(0, here.miss_tokens - there.miss_tokens) * token_s
        return there_s - here_s - AGAIN_PRICE * again_s

    def _forget_second(self, ticket: Ticket) -> None:
        assert ticket.route is not None
        for scored in ticket.route.choice.candidates:
            tickets = self._seconds.get(scored.view.worker)
            if tickets is not None:
                tickets.pop(ticket, None)
                if not tickets:
                    del self._seconds[scored.view.worker]

    # ---- sending away ------------------------------------------------------------------------------------------------

    def _objection(self, ticket: Ticket, ask: Ask) -> Unavailable | None:
        """Nobody is predicted to begin before the answer is of no use. Whoever is, gets it, whatever the policy says."""
        if ticket.deadline_s == NEVER_S or ticket.route is None:
            return None
        left_s = ticket.deadline_s - ask.at_s
        if self._dispatch.predict_s(ask, ticket.route.view) <= left_s:
            return None
        ticket.route = self._dispatch.earliest(ask, ticket.route, ticket.exclude)
        late_s = self._dispatch.predict_s(ask, ticket.route.view) - left_s
        if late_s <= 0:
            return None
        reason = f"the first token is predicted {late_s:.2f} s after the deadline"
        return Overloaded(reason, bounded_retry_s(late_s))

    def _lose_patience(self, ticket: Ticket, now_s: float) -> TurnedAway:
        waited_s = now_s - ticket.entered_s
        retry_s = self._departures.retry_after_s(self.queued, now_s)
        error: Unavailable
        if ticket.route is None:
            error = NoWorkers(self._dispatch.why_none(), retry_s)
        else:
            error = Overloaded(f"no worker could begin within {waited_s:g} s", retry_s)
        self.leave(ticket)
        return self._turn_away(ticket, error)

    def _turn_away(self, ticket: Ticket, error: Unavailable) -> TurnedAway:
        self.turned_away += 1
        return TurnedAway(ticket, error)

    def _settled(self, verdicts: list[Verdict], now_s: float) -> list[Verdict]:
        """Say when to look again."""
        closed = self._closed_until_s
        for worker in [worker for worker, until_s in closed.items() if until_s <= now_s]:
            del closed[worker]
        self.wake_at_s = NEVER_S
        if self._waiting:
            self.wake_at_s = min([now_s + CHECK_S, *closed.values()])
        return verdicts
