"""Who might be better off with another worker than the one they wait for."""

from collections.abc import Iterator
from itertools import islice

from tercet.ids import WorkerId
from tercet.router.door.ticket import Ticket

LOOK_MAX = 16
"""Of each kind, an idle worker looks at so many in search of one that would begin sooner with it."""


class Strays:
    """Those who are late where they are, whom anybody may draw; and those whose pair has another one, who may."""

    def __init__(self) -> None:
        self._late: dict[Ticket, None] = {}
        self._seconds: dict[WorkerId, dict[Ticket, None]] = {}
        """By the other one of their pair."""

    def __iter__(self) -> Iterator[Ticket]:
        yield from self._late
        for tickets in self._seconds.values():
            yield from tickets

    def join(self, ticket: Ticket) -> None:
        """It has been planned, and waits."""
        for worker in ticket.seconds:
            self._seconds.setdefault(worker, {})[ticket] = None

    def note(self, ticket: Ticket, *, late: bool) -> None:
        """It is predicted to be so; who came first stays first."""
        if late:
            self._late[ticket] = None
        else:
            self._late.pop(ticket, None)

    def leave(self, ticket: Ticket) -> None:
        """Before its plan is changed."""
        self._late.pop(ticket, None)
        for worker in ticket.seconds:
            tickets = self._seconds.get(worker)
            if tickets is not None:
                tickets.pop(ticket, None)
                if not tickets:
                    del self._seconds[worker]

    def is_late(self, ticket: Ticket) -> bool:
        return ticket in self._late

    def candidates(self, worker: WorkerId) -> list[Ticket]:
        """Whom the worker may draw: some of them, and others the next time."""
        found: list[Ticket] = []
        for tickets in (self._late, self._seconds.get(worker, {})):
            looked_at = list(islice(tickets, LOOK_MAX))
            if len(tickets) > LOOK_MAX:
                for ticket in looked_at:
                    del tickets[ticket]
                    tickets[ticket] = None
            found += looked_at
        return found
