"""The desk where requests get their workers: views in, the policy's choice out; what is sent is counted and remembered."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum

from msgspec import structs

from tercet.ids import WorkerId
from tercet.role import Role
from tercet.router.errand import Errand
from tercet.router.forecast import ttft_s
from tercet.router.ledger import Ledger
from tercet.router.policy import Ask, Choice, Pool, Scored, WorkerView
from tercet.router.pool import Peer
from tercet.router.routes import Route, Routes
from tercet.router.sight import Sight
from tercet.wire import Endpoint

ASKED = "asked"
"""Why a request moved to the worker that an operator, or a plan, had named."""


class Detour(StrEnum):
    """Why a request went to another worker than its policy chose; takes the place of the policy's own reason."""

    DRAWN = "drawn"
    """That one was idle while the request waited, and begins with it sooner."""
    EARLIEST = "earliest"
    """The one chosen would be too late for an answer to be of use; this one is the earliest of all."""


class Dispatch:
    """Plans without consequence; `send` and `adopt` charge the ledger and tell the prefix index."""

    def __init__(
        self,
        routes: Routes,
        sight: Sight,
        ledger: Ledger,
        peers: Callable[[], Iterable[Peer]],
    ) -> None:
        self.sight = sight
        self._routes, self._ledger, self._peers = routes, ledger, peers

    def plan(self, ask: Ask, exclude: frozenset[WorkerId]) -> Route | None:
        """Who should begin with the request; None when no decode worker may be asked now."""
        pool = self.sight.pools(ask, exclude)
        return self._routes.begin(ask, pool(Role.PREFILL), pool(Role.DECODE))

    def at(
        self, ask: Ask, route: Route, worker: WorkerId, detour: Detour | None = None
    ) -> Route | None:
        """The same plan with one worker of that pool; None while it may not be asked."""
        view = self.next_at(ask, route, worker)
        return None if view is None else self._moved(ask, route, view, detour)

    def next_at(self, ask: Ask, route: Route, worker: WorkerId) -> WorkerView | None:
        """That worker of the plan's pool, as it looks now to who is the next one there; None while it may not be asked."""
        view = self._pool(ask, route).find(worker)
        if view is None or view.suspect:
            return None
        held_tokens = view.held_tokens
        if not held_tokens:
            return view
        return structs.replace(view, held_tokens=0, load_tokens=view.load_tokens - held_tokens)

    def earliest(self, ask: Ask, route: Route, exclude: frozenset[WorkerId]) -> Route:
        """The same plan with whoever of that pool is predicted to have the first token first."""
        views = [view for view in self._pool(ask, route, exclude) if not view.suspect]
        best = min(views, key=lambda view: self.predict_s(ask, view), default=route.view)
        return self._moved(ask, route, best, Detour.EARLIEST)

    def predict_s(self, ask: Ask, view: WorkerView) -> float:
        """Seconds to the first token, whether the policy predicts or not."""
        return ttft_s(ask, view, self.sight.coefficients(view))

    def send(self, errand: Errand, ask: Ask, route: Route) -> None:
        """The request is being sent there."""
        self._charge(errand, ask, route.view.endpoint, route.miss_tokens)

    def refused(self, errand: Errand, route: Route, now_s: float) -> None:
        """The route's worker did not take the request: it has no more of it than it had when it was sent there."""
        had_blocks = route.view.hit_tokens // errand.prefix.block_tokens
        names = errand.prefix.names[had_blocks:]
        self.sight.take_back(errand.ask(0, now_s), route.view.endpoint, names)

    def adopt(
        self, errand: Errand, output_tokens: int, exclude: frozenset[WorkerId], now_s: float
    ) -> Choice | None:
        """Who pulls and decodes; None when no decode worker may be asked now. Pulled tokens are no work to wait for."""
        ask = errand.ask(output_tokens, now_s)
        pools = self.sight.pools(ask, exclude, in_line=False)
        choice = self._routes.adopt(ask, pools(Role.DECODE))
        if choice is not None:
            self._charge(errand, ask, choice.view.endpoint, 0)
        return choice

    def relocate(
        self, errand: Errand, output_tokens: int, owner: Endpoint, now_s: float, to: WorkerId | None
    ) -> Choice | None:
        """Who takes a running request over from `owner`: the policy's choice, or `to`; None when that one may not be asked."""
        if to is None:
            return self.adopt(errand, output_tokens, frozenset({owner.worker}), now_s)
        ask = errand.ask(output_tokens, now_s)
        pools = self.sight.pools(ask, frozenset({owner.worker}), in_line=False)
        view = pools(Role.DECODE).find(to)
        if view is None or view.suspect:
            return None
        self._charge(errand, ask, view.endpoint, 0)
        return Choice(view, (Scored(view, 0.0),), ASKED)

    def remember(
        self, errand: Errand, worker: Endpoint, output: Sequence[int], now_s: float
    ) -> None:
        """The worker has computed the request up to here and keeps its blocks as cache: the next turn may want them."""
        ask = errand.ask(len(output), now_s)
        self.sight.note(ask, worker, errand.prefix.extended(output))

    def why_none(self) -> str:
        """Why no worker may be asked."""
        members = [peer for peer in self._peers() if not peer.retired]
        decodes = [peer for peer in members if peer.endpoint.role is Role.DECODE]
        if not decodes:
            return "this cluster has no decode worker now"
        if not any(peer.connected for peer in decodes):
            return f"none of {len(decodes)} decode workers is connected"
        return f"none of {len(decodes)} decode workers may be asked now"

    def _pool(self, ask: Ask, route: Route, exclude: frozenset[WorkerId] = frozenset()) -> Pool:
        return self.sight.pools(ask, exclude)(route.view.endpoint.role)

    def _moved(self, ask: Ask, route: Route, view: WorkerView, detour: Detour | None) -> Route:
        choice, predicted_s = route.choice, route.predicted_ttft_s
        if predicted_s is not None:
            predicted_s = self.predict_s(ask, view)
        if view.worker not in (scored.view.worker for scored in choice.candidates):
            cost_tokens = float(view.miss_tokens(ask) + view.load_tokens)
            own = Scored(view, cost_tokens, predicted_s)
            choice = structs.replace(choice, candidates=(own, *choice.candidates))
        return structs.replace(
            route,
            choice=structs.replace(choice, view=view, reason=detour or choice.reason),
            miss_tokens=view.miss_tokens(ask),
            predicted_ttft_s=predicted_s,
        )

    def _charge(self, errand: Errand, ask: Ask, worker: Endpoint, tokens: int) -> None:
        errand.slot.charge(worker, tokens=tokens, context_tokens=ask.tokens, now_s=ask.at_s)
        self.sight.note(ask, worker, errand.prefix.names)
