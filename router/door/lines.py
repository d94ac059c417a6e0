"""The lines before all workers, and what they mean for somebody who comes now."""

from collections.abc import Iterator

from tercet.ids import WorkerId
from tercet.latency import Coefficients
from tercet.router.door.line import Line, Want
from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.forecast import prefill_s
from tercet.router.policy import Ask, WorkerView


class Lines:
    """One line for each worker that somebody waits for. Implements `sight.Held`."""

    def __init__(self) -> None:
        self._lines: dict[WorkerId, Line] = {}

    def __iter__(self) -> Iterator[tuple[WorkerId, Line]]:
        return iter(self._lines.items())

    def of(self, worker: WorkerId) -> Line | None:
        return self._lines.get(worker)

    def ahead_tokens(self, ask: Ask, view: WorkerView, coefficients: Coefficients) -> int:
        line = self._lines.get(view.worker)
        if line is None:
            return 0
        work_tokens = view.miss_tokens(ask)
        latest_s = latest_start_s(ask, work_tokens, coefficients)
        want = Want(ask.rank, work_tokens, latest_s)
        return line.place(want, view.pending_tokens, coefficients[1], ask.at_s).ahead_tokens

    def join(self, ticket: Ticket, ask: Ask, view: WorkerView, coefficients: Coefficients) -> None:
        """The ticket, which is planned for this worker, waits for it."""
        ticket.latest_s = latest_start_s(ask, ticket.work_tokens, coefficients)
        line = self._lines.setdefault(view.worker, Line())
        line.join(ticket, view.pending_tokens, coefficients[1], ask.at_s)

    def leave(self, ticket: Ticket) -> None:
        line = self._lines[ticket.worker]
        line.leave(ticket)
        if not len(line):
            del self._lines[ticket.worker]


def latest_start_s(ask: Ask, work_tokens: int, coefficients: Coefficients) -> float:
    """When the prefill must begin for the first token to be in time; never, if that is over."""
    latest_s = ask.rank.due_s - prefill_s(work_tokens, ask.tokens, coefficients)
    return latest_s if latest_s >= ask.at_s else NEVER_S
