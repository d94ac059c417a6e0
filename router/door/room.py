"""Who waits at the door, and where: in the line of a worker, or in the lobby as long as there is no plan."""

from collections.abc import Iterator
from itertools import islice

from tercet.ids import WorkerId
from tercet.latency import Coefficients
from tercet.router.door.line import Line
from tercet.router.door.lines import Lines
from tercet.router.door.strays import Strays
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.policy import Ask

Turn = tuple[int, float, float]


class Room:
    """Everybody is in one place. Whoever stands in a line has a route, whoever leaves it has none."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._waiting: dict[Ticket, None] = {}
        """Who came first first."""
        self._lobby: dict[Ticket, None] = {}
        self._strays = Strays()

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._waiting)

    def __contains__(self, ticket: object) -> bool:
        return ticket in self._waiting

    def first_of(self, worker: WorkerId) -> Ticket | None:
        """Who is next in the worker's line."""
        line = self._lines.of(worker)
        return line.first() if line is not None else None

    def turns(self) -> list[tuple[Turn, WorkerId]]:
        """The first of each line."""
        return [(line.first().turn, worker) for worker, line in self._lines]

    def lines(self) -> list[tuple[WorkerId, Line]]:
        """As they are now, whatever happens to them meanwhile."""
        return list(self._lines)

    def impatient(self, now_s: float) -> list[Ticket]:
        """Who has waited long enough."""
        return [ticket for ticket in self._waiting if ticket.give_up_s <= now_s]

    def last(self) -> Ticket:
        """Who has the last turn of those who have not begun: there must be one."""
        return max((each for each in self._waiting if not each.begun), key=lambda each: each.turn)

    def strays(self, worker: WorkerId) -> list[tuple[Ticket, bool]]:
        """Whom an idle worker may draw, and whether they are late where they are."""
        found = self._strays.candidates(worker)
        return [(ticket, self._strays.is_late(ticket)) for ticket in found]

    def lobby(self, most: int) -> list[Ticket]:
        """Some of those who have no plan, who lost it first first."""
        return list(islice(self._lobby, most))

    # ---- coming and going --------------------------------------------------------------------------------------------

    def wait_without_plan(self, ticket: Ticket) -> None:
        self._waiting[ticket] = self._lobby[ticket] = None

    def line_up(self, ticket: Ticket, ask: Ask, coefficients: Coefficients) -> None:
        """It has been planned."""
        assert ticket.route is not None, f"{ticket.id} is not planned"
        self._waiting[ticket] = None
        self._lobby.pop(ticket, None)
        self._lines.join(ticket, ask, ticket.route.view, coefficients)
        self._strays.join(ticket)

    def expect(self, ticket: Ticket, first_token_s: float) -> None:
        """The first token of somebody in a line is predicted for then."""
        ticket.expected_s = first_token_s
        self._strays.note(ticket, late=first_token_s > ticket.rank.due_s)

    def send_home(self, worker: WorkerId) -> None:
        """Who waits for this worker is to be planned again."""
        for ticket in list(self._lines.of(worker) or ()):
            self._step_out(ticket)
            self._lobby[ticket] = None

    def leave(self, ticket: Ticket) -> None:
        """It waits no more."""
        del self._waiting[ticket]
        self._step_out(ticket)
        self._lobby.pop(ticket, None)

    def _step_out(self, ticket: Ticket) -> None:
        if ticket.route is not None:
            self._lines.leave(ticket)
            self._strays.leave(ticket)
            ticket.route, ticket.expected_s = None, NEVER_S

    def validate(self) -> None:
        """Assert that everybody is in one place."""
        standing = [ticket for _, line in self._lines for ticket in line]
        assert len(standing) == len(set(standing)), "a ticket stands in two lines"
        assert set(standing) | set(self._lobby) == set(self._waiting), "a ticket is lost"
        assert not set(standing) & set(self._lobby), "a ticket is planned and is not"
        assert set(self._strays) <= set(standing), "an idle worker would find who has left"
        for _, line in self._lines:
            assert line.tokens == sum(ticket.work_tokens for ticket in line), line.tokens
