"""What simulated front doors know of caches, besides what production ones do.

`own` is production: what the front door itself sent, and what workers pass on of the others. The rest is for comparisons:
`alone` without the others; `snapshot` and `exact` with routers that are told of the caches of all, as old as the reports, or as
they are now.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from msgspec import structs

from tercet.ids import WorkerId
from tercet.router.ledger import Ledger, Life, Standing
from tercet.router.prefix_index import PrefixIndex
from tercet.router.prefix_names import PrefixName
from tercet.simulator.machine import Machine
from tercet.wire import Endpoint, LoadReport


class Knowledge(StrEnum):
    """Of caches."""

    OWN = "own"
    ALONE = "alone"
    SNAPSHOT = "snapshot"
    EXACT = "exact"


class ReportsAlone(Ledger):
    """Forgets what was sent: load is what workers said last. For comparisons with routers that keep no account."""

    def pending_tokens(
        self, worker: Endpoint, report: LoadReport | None, computed_tokens: int = 0
    ) -> int:
        return report.pending_prefill_tokens if report is not None else 0

    def standing(
        self, worker: Endpoint, report: LoadReport | None, computed_tokens: int = 0
    ) -> Standing:
        standing = super().standing(worker, report)
        pending_tokens = self.pending_tokens(worker, report)
        return structs.replace(standing, pending_tokens=pending_tokens)


class ToldIndex(PrefixIndex):
    """Asks the machines, or what was last heard of them, instead of remembering."""

    def __init__(
        self,
        machines: Mapping[WorkerId, Machine],
        heard: Mapping[WorkerId, frozenset[int]] | None,
    ) -> None:
        super().__init__(1)
        self._machines, self._heard = machines, heard

    def hit(self, life: Life, names: Sequence[PrefixName]) -> int:
        if self._heard is None:
            return self._machines[life[0]].hit(names)
        cached = self._heard.get(life[0], frozenset())
        return next((depth for depth, name in enumerate(names) if name not in cached), len(names))

    def hits(self, names: Sequence[PrefixName]) -> dict[Life, int]:
        lives = ((m.endpoint.worker, m.endpoint.incarnation) for m in self._machines.values())
        return {life: hit for life in lives if (hit := self.hit(life, names))}

    def nearest(self, names: Sequence[PrefixName], beyond: int = 0) -> Iterator[Life]:
        hits = {life: hit for life, hit in self.hits(names).items() if hit > beyond}
        return iter(sorted(hits, key=lambda life: -hits[life]))

    def record(self, life: Life, names: Sequence[PrefixName]) -> None:
        """Told, not remembered."""
