"""The desk where requests get their workers: views in, the policy's choice out, counted and remembered at once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tercet.clock import Clock
from tercet.ids import WorkerId
from tercet.request import RequestSpec
from tercet.role import Role
from tercet.router.conversations import Conversations
from tercet.router.ledger import Ledger, Slot, life_of
from tercet.router.policy import Ask, Choice, WorkerView
from tercet.router.pool import LivePool
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.prefix_names import PrefixName
from tercet.router.routes import Route, Routes
from tercet.router.session import Session
from tercet.router.sessions import Sessions
from tercet.router.views import view_of
from tercet.wire import Endpoint, Message


@dataclass(frozen=True, slots=True)
class Errand:
    """One request at the desk."""

    spec: RequestSpec
    prefix: Prefix
    slot: Slot
    session: str = ""

    def ask(self, output_tokens: int, now_s: float) -> Ask:
        """What policies are told, with so many tokens generated already."""
        spec, prefix = self.spec, self.prefix
        return Ask(
            request=spec.id,
            tokens=len(spec.prompt) + output_tokens,
            priority=spec.priority,
            session=self.session,
            names=prefix.names,
            block_tokens=prefix.block_tokens,
            at_s=now_s,
        )


class Dispatch:
    """Chooses among connected workers. A choice is charged to the ledger when it is made, and noted in the prefix index and
    with the conversation, if the request belongs to one."""

    def __init__(
        self,
        routes: Routes,
        sessions: Sessions,
        ledger: Ledger,
        index: PrefixIndex,
        clock: Clock,
    ) -> None:
        self._routes, self._sessions, self._ledger = routes, sessions, ledger
        self._index, self._clock = index, clock
        self._conversations = Conversations()

    def begin(
        self, errand: Errand, output_tokens: int, exclude: frozenset[WorkerId]
    ) -> Route | None:
        """Who begins with the request; None when no decode worker may be asked now."""
        ask = errand.ask(output_tokens, self._clock.now_s())
        pool = self._pools(errand, exclude, ask.at_s)
        route = self._routes.begin(ask, pool(Role.PREFILL), pool(Role.DECODE))
        if route is not None:
            self._charge(errand, ask, route.view.endpoint, route.miss_tokens)
        return route

    def adopt(
        self, errand: Errand, output_tokens: int, exclude: frozenset[WorkerId]
    ) -> Choice | None:
        """Who pulls and decodes; None when no decode worker may be asked now. Pulled tokens are no work to wait for."""
        ask = errand.ask(output_tokens, self._clock.now_s())
        choice = self._routes.adopt(ask, self._pools(errand, exclude, ask.at_s)(Role.DECODE))
        if choice is not None:
            self._charge(errand, ask, choice.view.endpoint, 0)
        return choice

    def remember(self, errand: Errand, worker: Endpoint, output: Sequence[int]) -> None:
        """The worker has computed the request up to here and keeps its blocks as cache: the next turn may want them."""
        self._note(errand, worker, errand.prefix.extended(output), self._clock.now_s())

    def post(self, worker: Endpoint, message: Message) -> None:
        """Send soon; if the worker is gone, its loss is or has been told."""
        self._sessions.post(worker, message)

    def why_none(self) -> str:
        """Why no worker may be asked."""
        members = [session for session in self._sessions if not session.retired]
        decodes = [session for session in members if session.endpoint.role is Role.DECODE]
        if not decodes:
            return "this cluster has no decode worker now"
        if not any(session.connected for session in decodes):
            return f"none of {len(decodes)} decode workers is connected"
        return f"none of {len(decodes)} decode workers may be asked now"

    def _pools(
        self, errand: Errand, exclude: frozenset[WorkerId], now_s: float
    ) -> Callable[[Role], LivePool]:
        """The pools as this request may see them; nothing is looked at before a policy asks."""
        names, ledger, tokens = errand.prefix.names, self._ledger, errand.prefix.tokens
        homes = self._conversations.hits(errand.session, names, now_s)

        def one(session: Session) -> WorkerView:
            life = life_of(session.endpoint)
            blocks = max(self._index.hit(life, names), homes.get(life, 0))
            return view_of(session, ledger, tokens(blocks), now_s)

        def everybody(sessions: Iterator[Session]) -> Iterator[WorkerView]:
            hits = self._index.hits(names)
            for session in sessions:
                life = life_of(session.endpoint)
                blocks = max(hits.get(life, 0), homes.get(life, 0))
                yield view_of(session, ledger, tokens(blocks), now_s)

        def holders() -> Iterator[WorkerId]:
            yield from (worker for worker, _ in homes)
            yield from (life[0] for life in self._index.nearest(names) if life not in homes)

        return lambda role: LivePool(self._sessions.roster(role), exclude, one, everybody, holders)

    def _charge(self, errand: Errand, ask: Ask, worker: Endpoint, tokens: int) -> None:
        errand.slot.charge(worker, tokens=tokens, context_tokens=ask.tokens, now_s=ask.at_s)
        self._note(errand, worker, errand.prefix.names, ask.at_s)

    def _note(
        self, errand: Errand, worker: Endpoint, names: Sequence[PrefixName], now_s: float
    ) -> None:
        self._index.record(life_of(worker), names)
        self._conversations.record(errand.session, worker, names, now_s)
