"""DualMap as a chooser: key, pair, choice; and everybody, when the pair will not do.

Looks at two workers, and at one more that has most of the prompt cached, however many there are, except in an escape.
"""

from collections.abc import Iterable, Sequence
from itertools import chain, islice

from tercet.ids import WorkerId
from tercet.router.dualmap.hotness import Hotness
from tercet.router.dualmap.judge import Judge, PairReason, Verdict
from tercet.router.dualmap.ring import Ring
from tercet.router.lot import Lot
from tercet.router.policy import Ask, Choice, Dice, Pool, Scored, WorkerView
from tercet.router.prefix_names import PrefixName

ESCAPE_LOOK_MAX = 64
"""Workers looked at when neither of a pair will do: 8 µs each. The best of 64 is among the best 2 % of any number."""
HOLDERS_MAX = 4
"""Workers with most of the prompt cached that are always among them."""
DETOUR_MAX = 8
"""Owners passed over because they may not be asked, before the whole pool is looked at instead."""


class DualMap:
    """One pool's map. `granule_tokens` is the step in which keys grow; a prompt shorter than that is a key as a whole."""

    def __init__(
        self,
        ring: Ring,
        hotness: Hotness,
        judge: Judge,
        dice: Dice,
        *,
        granule_tokens: int,
        escape: bool = True,
    ) -> None:
        self._ring, self._hotness, self._judge, self._dice = ring, hotness, judge, dice
        self._lot = Lot(dice)
        self._granule_tokens, self._escape = granule_tokens, escape

    def choose(self, ask: Ask, pool: Pool) -> Choice | None:
        """The better one of the request's pair, or who has the prompt cached; None when nobody in the pool may be asked."""
        self._ring.sync(pool.members)
        pair = [self._judge.score(ask, view) for view in self._pair(self._key(ask), pool)]
        if not pair:
            return self._best_of_all(ask, pool)
        holder = self._holder(ask, pool, pair)
        if holder is not None:
            return holder
        verdict = self._verdict(ask, pair)
        if verdict.reason is PairReason.ESCAPE and self._escape:
            return self._best_of_all(ask, pool)
        return Choice(verdict.best.view, tuple(pair), verdict.reason)

    def _holder(self, ask: Ask, pool: Pool, pair: Sequence[Scored]) -> Choice | None:
        """Who has usefully more cached than both of the pair, and is good enough.

        There is somebody where a key has grown, the ring has changed, or the turn before was drawn away or had to escape.
        Nobody looks who would save less than half of the prompt.
        """
        best = max(pair, key=lambda scored: scored.view.hit_tokens)
        if 2 * best.view.hit_tokens >= ask.tokens:
            return None
        useful_tokens = best.view.hit_tokens + self._judge.useful_tokens(ask)
        view = next(pool.nearest(useful_tokens), None)
        if view is None or view.suspect:
            return None
        third = self._judge.score(ask, view)
        verdict = self._judge.decide(ask, third, best)
        if verdict != (third, PairReason.AFFINITY):
            return None
        return Choice(view, (third, best), PairReason.HOLDER)

    def _verdict(self, ask: Ask, pair: Sequence[Scored]) -> Verdict:
        if len(pair) == 2:
            return self._judge.decide(ask, pair[0], pair[1])
        enough = self._judge.good_enough(ask, pair[0])
        return Verdict(pair[0], PairReason.ALONE if enough else PairReason.ESCAPE)

    def _best_of_all(self, ask: Ask, pool: Pool) -> Choice | None:
        """Of a large pool: of some drawn by lot, and who has most of the prompt cached. That is nearly as good as all."""
        views: Iterable[WorkerView] = pool
        if len(pool.members) > ESCAPE_LOOK_MAX:
            nearest = list(islice(pool.nearest(), HOLDERS_MAX))
            known = {view.worker for view in nearest}
            drawn = self._lot.draw(pool, ESCAPE_LOOK_MAX)
            views = chain(nearest, (view for view in drawn if view.worker not in known))
        scored = tuple(self._judge.score(ask, view) for view in views if not view.suspect)
        if not scored:
            return None
        best = scored[0]
        for other in scored[1:]:
            best = self._judge.better(ask, best, other)
        return Choice(best.view, scored, PairReason.ESCAPE)

    def _key(self, ask: Ask) -> int:
        """The shortest prefix that is not hot, in whole granules; else the whole prompt; by lot if it has no full block."""
        if not ask.names:
            return self._dice.randrange(2**64)
        prefixes = self._granules(ask)
        self._hotness.observe(ask.request, prefixes, ask.at_s)
        depth = self._hotness.depth(prefixes, len(self._ring.members))
        return prefixes[depth] if depth < len(prefixes) else ask.names[-1]

    def _granules(self, ask: Ask) -> Sequence[PrefixName]:
        blocks = max(1, self._granule_tokens // ask.block_tokens)
        return tuple(ask.names[blocks - 1 :: blocks])

    def _pair(self, key: int, pool: Pool) -> list[WorkerView]:
        """The views of the key's owners; who may not be asked is followed by the next one on the ring, as if it had left."""
        pair: list[WorkerView] = []
        for side in (0, 1):
            taken = pair[0].worker if pair else None
            view = self._first_usable(key, side, pool, taken)
            if view is not None:
                pair.append(view)
        return pair

    def _first_usable(
        self, key: int, side: int, pool: Pool, taken: WorkerId | None
    ) -> WorkerView | None:
        for worker in islice(self._ring.walk(key, side), DETOUR_MAX):
            if worker != taken:
                view = pool.find(worker)
                if view is not None and not view.suspect:
                    return view
        return None
