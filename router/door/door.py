"""The queue at the door: requests wait here, not at workers, until one that suits them can begin soon.

    enter ──► plan (policy) ──► line of that worker ──► sent, when the worker has little left to do
      ▲           │  nobody may be asked: lobby            │ refused: its report is news, plan again
      └───────────┴────────────────────────────────────────┘
                  predicted too late at everybody, waited too long, too many: turned away, with a time to come again

What waits here can still be ordered, cancelled and given to another worker, and no worker's queue depends on how old our
knowledge of it is: a worker with too much to do refuses (P/D-Serve, arXiv 2408.08147), and says how much that is.
Pure: events in, verdicts out; times and dice come from outside.
"""

from heapq import heapify, heappop, heappush

from tercet.errors import Unavailable
from tercet.ids import WorkerId
from tercet.router.dispatch import Dispatch
from tercet.router.door.closures import Closures
from tercet.router.door.denials import Denials
from tercet.router.door.early import Ours
from tercet.router.door.fairness import FairShare
from tercet.router.door.lines import Lines
from tercet.router.door.outlook import Outlook
from tercet.router.door.room import Room
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.door.verdict import DoorRules, Sent, TurnedAway, Verdict
from tercet.router.policy import Ask, Dice

CHECK_S = 0.25
"""While somebody waits, lines are looked through so often: workers may have become suspect, and patience ends."""
PLANS_MAX = 32
"""In one look; one plan may look at all workers, and the others wait for the next look."""


class Door:
    """One front door's queue. Everybody who enters leaves by `Sent` and then `done`, by `TurnedAway`, or by `leave`."""

    def __init__(
        self, dispatch: Dispatch, lines: Lines, rules: DoorRules, fair: FairShare, dice: Dice
    ) -> None:
        self._dispatch, self._rules, self._fair = dispatch, rules, fair
        self._room, self._closures = Room(lines), Closures(dice)
        self._sent: set[Ticket] = set()
        self._outlook = Outlook(dispatch, lines, self._closures)
        self._denials = Denials(dispatch, self._outlook, rules.itl_s_max)
        self._look_s = NEVER_S
        self.turned_away = 0
        """Since the start."""

    @property
    def queued(self) -> int:
        return len(self._room)

    @property
    def in_flight(self) -> int:
        """Places taken."""
        return len(self._sent)

    @property
    def wake_at_s(self) -> float:
        """When `wake` is to be called if nothing happens before."""
        return min(self._look_s, self._closures.next_s) if self.queued else NEVER_S

    @property
    def _is_full(self) -> bool:
        return len(self._sent) >= self._rules.places

    def holds(self, ticket: Ticket) -> bool:
        """Whether it waits here."""
        return ticket in self._room

    # ---- events ------------------------------------------------------------------------------------------------------

    def enter(self, ticket: Ticket, now_s: float) -> list[Verdict]:
        """Somebody came, for the first time or back from a worker that has nothing of it any more."""
        freed = self._is_full and ticket in self._sent
        self._sent.discard(ticket)
        ask = ticket.ask(now_s)
        ticket.route = self._dispatch.plan(ask, ticket.exclude)
        error = self._denials.of_comer(ticket, ask, Ours(self._sent, self._room))
        verdicts: list[Verdict] = []
        if error is not None:
            verdicts.append(self._turn_away(ticket, error))
        else:
            self._wait(ticket, ask)
        if freed:
            verdicts += self._fill(now_s)
        for worker in ticket.choices:
            if ticket in self._room:
                verdicts += self._serve(worker, now_s)
        came = ticket in self._room and not ticket.begun
        if came and self.queued > self._rules.queue_max:
            # Whoever has the last turn goes, not whoever came last: a flood does not keep others out.
            error = self._denials.of_one_too_many(self.queued - 1, now_s)
            verdicts.append(self._turn_away(self._room.last(), error))
        return verdicts

    def leave(self, ticket: Ticket) -> None:
        """It is not wanted any more, wherever it is; idempotent."""
        if ticket in self._room:
            self._room.leave(ticket)
            self._give_back(ticket)

    def done(self, ticket: Ticket, now_s: float) -> list[Verdict]:
        """Its place is free, if it had one."""
        self.leave(ticket)
        if ticket not in self._sent:
            return []
        was_full = self._is_full
        self._sent.remove(ticket)
        self._denials.departed(ticket, now_s)
        return self._fill(now_s) if was_full else []

    def refused(self, worker: WorkerId, retry_after_s: float, now_s: float) -> None:
        """The worker has so much to do. It is asked again when that is little enough, not when it is idle."""
        self._closures.close(worker, retry_after_s - self._rules.ahead_s, now_s)

    def news(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """Something is known of the worker that may let it begin with one more: it has reported."""
        return self._serve(worker, now_s) if self.queued else []

    def first_token(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """One of ours has been prefilled there. Where other doors want the worker too, this is no news: they do not hear it,
        and whoever once has something there would always be the first to send more."""
        return [] if self._closures.is_contested(worker, now_s) else self.news(worker, now_s)

    def joined(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """The worker may be asked, and may be the one that was waited for."""
        self._plan_lobby(now_s)
        return self._fill(now_s) + self.news(worker, now_s)

    def lost(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """The worker is gone; those who waited for it are planned again."""
        self._closures.open(worker)
        self._room.send_home(worker)
        self._plan_lobby(now_s)
        return self._fill(now_s)

    def wake(self, now_s: float) -> list[Verdict]:
        """The time that was asked for has come: workers have opened again, or it is time to look."""
        if now_s >= self._look_s:
            return self.look(now_s)
        verdicts: list[Verdict] = []
        for worker in self._closures.opened(now_s):
            verdicts += self._serve(worker, now_s)
        return verdicts

    def look(self, now_s: float) -> list[Verdict]:
        """Anything may have changed: see who has waited too long, plan again who waits for somebody not there, serve."""
        self._look_s = now_s + CHECK_S
        verdicts: list[Verdict] = []
        for ticket in self._room.impatient(now_s):
            error = self._denials.of_impatient(ticket, self.queued, now_s)
            verdicts.append(self._turn_away(ticket, error))
        for worker, line in self._room.lines():
            expected = self._outlook.first_tokens(line, now_s)
            if expected is None:
                self._room.send_home(worker)
            for ticket, first_token_s in expected or ():
                self._room.expect(ticket, first_token_s)
        self._plan_lobby(now_s)
        opened = self._closures.opened(now_s)
        verdicts += self._fill(now_s)
        for worker in opened:
            verdicts += self._serve(worker, now_s)
        return verdicts

    def validate(self) -> None:
        """Assert that everybody is in one place, and that those who wait will be looked at."""
        self._room.validate()
        assert not any(ticket in self._room for ticket in self._sent), "a ticket waits and is sent"
        assert len(self._sent) <= self._rules.places, "more are sent than there are places"
        assert not self.queued or self.wake_at_s < NEVER_S, "nobody would ever look"

    # ---- planning ----------------------------------------------------------------------------------------------------

    def _wait(self, ticket: Ticket, ask: Ask) -> None:
        if not self.queued:
            self._look_s = ask.at_s + CHECK_S
        if ticket.route is None:
            self._room.wait_without_plan(ticket)
            return
        ticket.route = ticket.route.shortened()
        self._room.line_up(ticket, ask, self._dispatch.sight.coefficients(ticket.view))
        self._room.expect(ticket, ask.at_s + self._outlook.first_token_s(ask, ticket.view))

    def _plan_lobby(self, now_s: float) -> None:
        """As many as may be, now with everybody: who said no before is asked again after a while. Where nobody may be asked
        for one, nobody may for the next."""
        for ticket in self._room.lobby(PLANS_MAX):
            ticket.exclude = frozenset()
            ask = ticket.ask(now_s)
            ticket.route = self._dispatch.plan(ask, ticket.exclude)
            if ticket.route is None:
                return
            self._wait(ticket, ask)

    # ---- sending -----------------------------------------------------------------------------------------------------

    def _fill(self, now_s: float) -> list[Verdict]:
        """Give the places to the lines in the order of rank, as far as their workers can begin soon."""
        verdicts: list[Verdict] = []
        turns = self._room.turns()
        heapify(turns)
        while turns and not self._is_full:
            _, worker = heappop(turns)
            sent = self._serve_one(worker, now_s)
            if sent is not None:
                verdicts.append(sent)
                if (first := self._room.first_of(worker)) is not None:
                    heappush(turns, (first.turn, worker))
        return verdicts

    def _serve(self, worker: WorkerId, now_s: float) -> list[Verdict]:
        """Send to the worker while it can begin soon: who waits for it, then who would begin sooner with it."""
        verdicts: list[Verdict] = []
        while (sent := self._serve_one(worker, now_s)) is not None:
            verdicts.append(sent)
        return verdicts

    def _serve_one(self, worker: WorkerId, now_s: float) -> Sent | None:
        if self._is_full or self._closures.left_s(worker, now_s) > 0:
            return None
        ticket = self._room.first_of(worker)
        if ticket is None:
            ticket = self._outlook.most_helped(self._room.strays(worker), worker, now_s)
        ahead_s = self._rules.ahead_s
        if ticket is None or not self._outlook.begins_soon(ticket, worker, now_s, ahead_s):
            return None
        route = self._outlook.with_worker(ticket, worker, now_s)
        assert route is not None, f"{worker} may be asked and may not"
        self._room.leave(ticket)
        self._dispatch.send(ticket.errand, ticket.ask(now_s), route)
        if not ticket.begun:
            ticket.begun = True
            self._fair.served(ticket.rank.tenant, len(ticket.errand.spec.prompt))
        self._sent.add(ticket)
        ticket.expected_s = now_s + self._dispatch.predict_s(ticket.ask(now_s), route.view)
        return Sent(ticket, route)

    # ---- sending away ------------------------------------------------------------------------------------------------

    def _turn_away(self, ticket: Ticket, error: Unavailable) -> TurnedAway:
        self.turned_away += 1
        if ticket in self._room:
            self._room.leave(ticket)
        ticket.route = None
        self._give_back(ticket)
        return TurnedAway(ticket, error)

    def _give_back(self, ticket: Ticket) -> None:
        if not ticket.begun:
            self._fair.unserved(ticket.rank.tenant, len(ticket.errand.spec.prompt))
