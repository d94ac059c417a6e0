"""The desk where requests get their workers: views in, the policy's choice out, counted and remembered at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tercet.clock import Clock
from tercet.ids import WorkerId
from tercet.request import RequestSpec
from tercet.role import Role
from tercet.router.ledger import Ledger, Slot, life_of
from tercet.router.policy import Ask, Choice, WorkerView
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.routes import Route, Routes
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

    def ask(self, output_tokens: int) -> Ask:
        """What policies are told, with so many tokens generated already."""
        spec = self.spec
        return Ask(spec.id, len(spec.prompt) + output_tokens, spec.priority, self.session)


class Dispatch:
    """Chooses among connected workers. A choice is charged to the ledger and noted in the prefix index when it is made."""

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

    def begin(
        self, errand: Errand, output_tokens: int, exclude: frozenset[WorkerId]
    ) -> Route | None:
        """Who begins with the request; None when no decode worker may be asked now."""
        ask = errand.ask(output_tokens)
        seen = self._seen(errand, exclude)
        route = self._routes.begin(ask, seen(Role.PREFILL), seen(Role.DECODE))
        if route is not None:
            self._charge(errand, route.view.endpoint, route.miss_tokens, ask.tokens)
        return route

    def adopt(
        self, errand: Errand, output_tokens: int, exclude: frozenset[WorkerId]
    ) -> Choice | None:
        """Who pulls and decodes; None when no decode worker may be asked now. Pulled tokens are no work to wait for."""
        ask = errand.ask(output_tokens)
        choice = self._routes.adopt(ask, self._seen(errand, exclude)(Role.DECODE))
        if choice is not None:
            self._charge(errand, choice.view.endpoint, 0, ask.tokens)
        return choice

    def remember(self, errand: Errand, worker: Endpoint, output: Sequence[int]) -> None:
        """The worker has computed the request up to here and keeps its blocks as cache: the next turn may want them."""
        self._index.record(life_of(worker), errand.prefix.extended(output))

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

    def _seen(
        self, errand: Errand, exclude: frozenset[WorkerId]
    ) -> Callable[[Role], list[WorkerView]]:
        """The views of one pool for this request; the index is asked once for both pools."""
        now_s = self._clock.now_s()
        hits = self._index.hits(errand.prefix.names)

        def pool(role: Role) -> list[WorkerView]:
            return [
                view_of(
                    s, self._ledger, errand.prefix.tokens(hits.get(life_of(s.endpoint), 0)), now_s
                )
                for s in self._sessions.of_role(role)
                if s.endpoint.worker not in exclude
            ]

        return pool

    def _charge(self, errand: Errand, worker: Endpoint, tokens: int, context_tokens: int) -> None:
        now_s = self._clock.now_s()
        errand.slot.charge(worker, tokens=tokens, context_tokens=context_tokens, now_s=now_s)
        self._index.record(life_of(worker), errand.prefix.names)
