"""What one front door sees of its workers, made into the pools that policies look at.

Reports, corrected by the ledger and by the time that has passed since; the prefixes that were sent there, by this door and
as far as is told by others; and what waits at this door for each of them. Decides nothing.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from typing import Protocol

from msgspec import structs

from tercet.ids import WorkerId
from tercet.latency import Coefficients
from tercet.role import Role
from tercet.router.conversations import Conversations
from tercet.router.forecast import Forecast
from tercet.router.hearsay import Hearsay
from tercet.router.ledger import Ledger, Life, life_of
from tercet.router.policy import Ask, WorkerView
from tercet.router.pool import LivePool, Peer, Roster
from tercet.router.prefix_index import PrefixIndex
from tercet.router.prefix_names import PrefixName
from tercet.router.views import pending_tokens, view_of
from tercet.wire import Endpoint, LoadReport

ASSUMED_TOKENS_PER_S = 10_000.0
"""Speed of a worker before anybody has measured one."""


class Seats(Protocol):
    """Who is there."""

    def roster(self, role: Role) -> Roster: ...


class Held(Protocol):
    """What waits at the door."""

    def ahead_tokens(self, ask: Ask, view: WorkerView, coefficients: Coefficients) -> int:
        """Tokens that would be sent to that worker before the request."""


class Sight:
    """Views for one request at a time; nothing is looked at before a policy asks."""

    def __init__(
        self, seats: Seats, ledger: Ledger, index: PrefixIndex, hearsay: Hearsay, held: Held
    ) -> None:
        self._seats, self._ledger, self._held = seats, ledger, held
        self._index, self._hearsay = index, hearsay
        self._conversations = Conversations()
        self._forecast = Forecast(ASSUMED_TOKENS_PER_S)

    def pools(
        self, ask: Ask, exclude: frozenset[WorkerId], *, in_line: bool = True
    ) -> Callable[[Role], LivePool]:
        """Each pool as this request may see it; without `in_line` it does not wait at the door, and who does is not ahead."""
        homes = self._conversations.hits(ask.session, ask.names, ask.at_s)
        glance = Glance(self, ask, homes, in_line=in_line)
        return lambda role: LivePool(self._seats.roster(role), exclude, glance)

    def note(self, ask: Ask, worker: Endpoint, names: Sequence[PrefixName]) -> None:
        """The worker has, or will soon have, these leading blocks."""
        self._index.record(life_of(worker), names)
        self._conversations.record(ask.session, worker, names, ask.at_s)

    def take_back(self, ask: Ask, worker: Endpoint, names: Sequence[PrefixName]) -> None:
        """The worker did not take the request, so it will not have these."""
        self._index.take_back(life_of(worker), names)
        self._conversations.take_back(ask.session, worker)

    def coefficients(self, view: WorkerView) -> Coefficients:
        """How long the worker takes to prefill, by its own fit, another one's, or the assumption."""
        return self._forecast.coefficients(view.report)

    def pending_s(self, role: Role, worker: WorkerId, now_s: float) -> float | None:
        """How long a worker will take for the prompts that it has; None while it may not be sent more."""
        peer = self._seats.roster(role).sessions.get(worker)
        if peer is None or not peer.usable or peer.suspect(now_s):
            return None
        token_s = self._forecast.coefficients(peer.report)[1]
        return token_s * pending_tokens(peer, self._ledger, now_s, token_s)

    def reports(self, role: Role) -> Iterator[LoadReport]:
        """The last ones of all workers of a pool that may be asked."""
        peers = self._seats.roster(role).sessions.values()
        return (peer.report for peer in peers if peer.usable and peer.report is not None)

    def view(self, peer: Peer, ask: Ask, blocks: int, *, in_line: bool) -> WorkerView:
        """A worker with so many leading blocks of the request."""
        coefficients = self._forecast.coefficients(peer.report)
        token_s = coefficients[1]
        view = view_of(peer, self._ledger, blocks * ask.block_tokens, ask.at_s, token_s)
        held_tokens = self._held.ahead_tokens(ask, view, coefficients) if in_line else 0
        if not held_tokens:
            return view
        return structs.replace(
            view, held_tokens=held_tokens, load_tokens=view.load_tokens + held_tokens
        )

    # What caches hold is known here from what was sent to them; a simulation may know better.

    def hit(self, life: Life, names: Sequence[PrefixName]) -> int:
        """How many leading blocks of `names` that worker has."""
        return max(self._index.hit(life, names), self._hearsay.hit(life, names))

    def hits(self, names: Sequence[PrefixName]) -> dict[Life, int]:
        """The same of all workers that have any."""
        hits = self._index.hits(names)
        for life, blocks in self._hearsay.hits(names).items():
            hits[life] = max(blocks, hits.get(life, 0))
        return hits

    def nearest(self, names: Sequence[PrefixName], beyond: int) -> Iterator[Life]:
        """Who has more than `beyond` leading blocks; each where it comes first, and that is by the better of both."""
        if not len(self._hearsay):
            yield from self._index.nearest(names, beyond)
            return
        told: set[Life] = set()
        ours, theirs = by_hit(self._index, names, beyond), by_hit(self._hearsay, names, beyond)
        for _, life in heapq.merge(ours, theirs, key=itemgetter(0), reverse=True):
            if life not in told:
                told.add(life)
                yield life


class Glance:
    """All workers as one request sees them at one moment; `homes` are those of its conversation, with the blocks that they
    have. Who is looked at one by one is remembered: a policy may come back to them."""

    __slots__ = ("_ask", "_homes", "_in_line", "_sight", "_views")

    def __init__(self, sight: Sight, ask: Ask, homes: dict[Life, int], *, in_line: bool) -> None:
        self._sight, self._ask, self._homes, self._in_line = sight, ask, homes, in_line
        self._views: dict[WorkerId, WorkerView] = {}

    def one(self, peer: Peer) -> WorkerView:
        endpoint = peer.endpoint
        view = self._views.get(endpoint.worker)
        if view is None:
            life = life_of(endpoint)
            blocks = self._sight.hit(life, self._ask.names)
            if self._homes:
                blocks = max(blocks, self._homes.get(life, 0))
            view = self._sight.view(peer, self._ask, blocks, in_line=self._in_line)
            self._views[endpoint.worker] = view
        return view

    def everybody(self, peers: Iterator[Peer]) -> Iterator[WorkerView]:
        sight, ask, homes, in_line = self._sight, self._ask, self._homes, self._in_line
        hits: dict[Life, int] | None = None
        for peer in peers:
            view = self._views.get(peer.endpoint.worker)
            if view is None:
                hits = sight.hits(ask.names) if hits is None else hits
                life = life_of(peer.endpoint)
                blocks = max(hits.get(life, 0), homes.get(life, 0))
                view = sight.view(peer, ask, blocks, in_line=in_line)
            yield view

    def holders(self, beyond_tokens: float) -> Iterator[WorkerId]:
        homes, ask = self._homes, self._ask
        for worker, _ in homes:
            yield worker
        for life in self._sight.nearest(ask.names, int(beyond_tokens // ask.block_tokens)):
            if life not in homes:
                yield life[0]


def by_hit(
    known: PrefixIndex | Hearsay, names: Sequence[PrefixName], beyond: int
) -> Iterator[tuple[int, Life]]:
    """Who has seen more than `beyond` of `names`, with how many blocks; who has seen most first."""
    return ((known.hit(life, names), life) for life in known.nearest(names, beyond))
