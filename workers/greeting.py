"""Whom a worker talks to, and how it introduces itself. Pure; version, cluster and incarnation are checked by the link."""

from dataclasses import dataclass

from tercet.ids import Incarnation, WorkerId
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, KvRegion, Refuse, Welcome


@dataclass(frozen=True, slots=True)
class Greeting:
    """One worker's side of every handshake."""

    cluster: str
    worker: WorkerId
    incarnation: Incarnation
    compat: str
    """Who names the same key may read our KV; never empty, as an empty one is a front door's."""
    region: KvRegion
    staged: KvRegion | None = None
    others: tuple[KvRegion, ...] = ()

    def answer(self, hello: Hello) -> Welcome | Refuse:
        """Front doors are welcome; workers if their KV is like ours. Others cannot pull from us, which is no fault."""
        if not hello.compat:
            return Welcome(PROTOCOL_VERSION, self.worker, self.incarnation)
        if hello.compat != self.compat:
            return Refuse(
                f"KV of {hello.sender} ({hello.compat}) is not KV of {self.worker} ({self.compat})"
            )
        return Welcome(
            PROTOCOL_VERSION,
            self.worker,
            self.incarnation,
            self.region,
            self.staged,
            list(self.others),
        )

    def hello(self, source: Endpoint) -> Hello:
        """How we introduce ourselves to a worker we pull from."""
        return Hello(
            PROTOCOL_VERSION,
            self.cluster,
            self.worker,
            self.incarnation,
            source.incarnation,
            self.compat,
            self.region.agent,
        )
