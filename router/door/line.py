"""Who waits at this door for one worker, in the order in which they will be sent.

    next ──► a   b   c   d                    d is late, so nobody has to wait for it
             ▲ x ─┘   └─ x may pass c: x must begin earlier, and c is still in time behind it

Whoever comes goes to the end and then passes those who lose nothing by it. So what was predicted for those who wait holds,
unless somebody of higher priority comes, or of a tenant that had less, or back from a worker that did not take it.
"""

from collections.abc import Iterator
from itertools import takewhile
from typing import NamedTuple

from tercet.router.door.ticket import NEVER_S, Ticket
from tercet.router.policy import Rank


class Place(NamedTuple):
    """A place in a line, and the tokens that are computed before its own."""

    position: int
    ahead_tokens: int


class Want(NamedTuple):
    """What counts of somebody who looks for a place."""

    rank: Rank
    work_tokens: int
    latest_s: float


class Line:
    """Tickets for one worker. `token_s` is its speed; `pending_tokens` is what it has to compute before any of them."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self.tokens = 0
        """Of all who wait."""

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def place(self, want: Want, pending_tokens: int, token_s: float, now_s: float) -> Place:
        """Where somebody would stand."""
        index, ahead = len(self._tickets), pending_tokens + self.tokens
        while index:
            other = self._tickets[index - 1]
            ahead_of_other = ahead - other.work_tokens
            pushed_s = now_s + (ahead_of_other + want.work_tokens) * token_s
            if not _passes(want, other, pushed_s):
                break
            index, ahead = index - 1, ahead_of_other
        return Place(index, ahead - pending_tokens)

    def join(self, ticket: Ticket, pending_tokens: int, token_s: float, now_s: float) -> None:
        want = Want(ticket.rank, ticket.work_tokens, ticket.latest_s)
        place = self.place(want, pending_tokens, token_s, now_s)
        self._tickets.insert(place.position, ticket)
        self.tokens += ticket.work_tokens

    def leave(self, ticket: Ticket) -> None:
        self._tickets.remove(ticket)
        self.tokens -= ticket.work_tokens

    def first(self) -> Ticket:
        return self._tickets[0]

    def tokens_before(self, ticket: Ticket) -> int:
        """Of those who stand before somebody who stands here."""
        before = takewhile(lambda other: other is not ticket, self._tickets)
        return sum(other.work_tokens for other in before)


def _passes(want: Want, other: Ticket, pushed_s: float) -> bool:
    """Whether somebody goes before `other`, who would then begin at `pushed_s`."""
    mine, theirs = want.rank, other.rank
    if mine.priority != theirs.priority:
        return mine.priority > theirs.priority
    if mine.tenant != theirs.tenant and mine.tag != theirs.tag:
        return mine.tag < theirs.tag
    if (want.latest_s < NEVER_S) is not (other.latest_s < NEVER_S):
        return want.latest_s < NEVER_S
    if mine.tag < theirs.tag:
        return True  # it came before, and is back from a worker that did not take it
    return want.latest_s < other.latest_s and pushed_s <= other.latest_s
