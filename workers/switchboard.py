"""Where everything in a worker meets: orders go to the engine and to both sides of moves, and their events come back.

Decides nothing itself, except that a later order for a request ends what an earlier one had begun.
"""

from collections.abc import Callable

from tercet import wire
from tercet.clock import Clock
from tercet.config import ClusterConfig
from tercet.ids import Epoch, WorkerId
from tercet.link import Link
from tercet.role import Role
from tercet.workers import events
from tercet.workers.arrivals import Arrivals
from tercet.workers.codecs import Codecs, packing_terms, pull_terms
from tercet.workers.departures import Departures
from tercet.workers.engine_thread import EngineThread
from tercet.workers.move import Packed
from tercet.workers.packing_thread import PackingThread
from tercet.workers.readers import Readers
from tercet.workers.sessions import Sessions
from tercet.workers.sources import FromSource, Sources
from tercet.workers.transfer import Transfer, TransferEvent


class Switchboard:
    """Implements `sessions.Orders`. Used on the event loop only."""

    def __init__(
        self,
        config: ClusterConfig,
        engine: EngineThread,
        transfer: Transfer,
        greet: Callable[[wire.Endpoint], wire.Hello],
        *,
        block_tokens: int,
        host_id: str,
        clock: Clock,
        codecs: Codecs | None = None,
        packing: PackingThread | None = None,
    ) -> None:
        """`codecs` and the thread that packs with them: both, or none."""
        self._engine = engine
        self._transfer = transfer
        self._clock = clock
        self._renew_s = config.transfer.renew_s
        self._renewed_s = clock.now_s()
        self.draining = False
        self.sessions = Sessions(self)
        block_bytes = self._block_bytes = kv_block_bytes(transfer)
        self.departures = Departures(config.transfer.lease_s, packing_terms(codecs, block_bytes))
        self.readers = Readers(self.departures, engine, transfer, self.sessions, clock, packing)
        self.sources = Sources(greet, config.link, host_id, transfer, self._on_source)
        terms = pull_terms(codecs, block_tokens, block_bytes)
        self.arrivals = Arrivals(engine, transfer, self.sources, config.transfer, terms, clock)

    # ---- orders of front doors ---------------------------------------------------------------------------------------

    def submit(self, owner: str, order: wire.Submit) -> None:
        request = order.spec.id
        self.arrivals.cancel(request, Epoch(order.epoch - 1))
        if order.hand_off:
            self.departures.open(request, order.epoch, owner)
        self._engine.post(
            events.Run(order.spec, order.epoch, owner, tuple(order.output), order.hand_off)
        )

    def adopt(self, owner: str, order: wire.Adopt) -> None:
        self.arrivals.cancel(order.spec.id, Epoch(order.epoch - 1))
        self.arrivals.begin(owner, order)

    def resume(self, owner: str, order: wire.Resume) -> None:
        self.readers.carry_out(self.departures.resume(owner, order, self._clock.now_s()))

    def cancel(self, order: wire.Cancel) -> None:
        # The move goes first: its own Drop knows which blocks a read may still write into.
        self.arrivals.cancel(order.request, order.epoch)
        self._engine.post(events.Drop(order.request, order.epoch))

    def owner_lost(self, owner: str) -> None:
        self.arrivals.owner_lost(owner)
        self._engine.post(events.DropOwner(owner))
        self.readers.carry_out(self.departures.owner_lost(owner, self._clock.now_s()))

    # ---- events ------------------------------------------------------------------------------------------------------

    def on_engine(self, step: list[events.Event]) -> None:
        """Everything that happened in one step; what concerns one session leaves as one frame."""
        for event in step:
            match event:
                case events.Said(owner=owner, message=message):
                    self.sessions.post(owner, message)
                    if isinstance(message, wire.Tokens) and message.finish is not None:
                        self.readers.on_engine(event)
                case events.Reserved() | events.Extended():
                    self.arrivals.on_engine(event)
                case events.Published() | events.Held() | events.Absent():
                    self.readers.on_engine(event)
                case events.Ended():
                    self.arrivals.on_engine(event)
                    self.readers.on_engine(event)

    def on_packed(self, event: Packed) -> None:
        self.readers.on_packed(event)

    def on_transfer(self, event: TransferEvent) -> None:
        self.arrivals.on_transfer(event)

    def _on_source(self, peer: str, event: FromSource) -> None:
        self.arrivals.on_source(peer, event)

    # ---- links and time ----------------------------------------------------------------------------------------------

    async def serve(self, hello: wire.Hello, link: Link[wire.Message]) -> None:
        """One link to its end: a worker names its compatibility key, a front door has none."""
        await (self.readers if hello.compat else self.sessions).serve(hello, link)

    def beat(self, role: Role) -> None:
        """What is done every report period."""
        self.readers.tick()
        self.arrivals.tick()
        now_s = self._clock.now_s()
        if now_s - self._renewed_s >= self._renew_s:
            self._renewed_s = now_s
            self.arrivals.renew()
        self.sessions.broadcast(self.report(role))

    def relieve(self, tokens: int, to: WorkerId) -> None:
        """Ask front doors to move some of what runs here to that worker."""
        self._engine.post(events.Relieve(tokens, to))

    def drain(self, role: Role) -> None:
        """From now on every report says that the worker wants to be rid of what it has; the first one goes out at once."""
        self.draining = True
        self.sessions.broadcast(self.report(role))

    def report(self, role: Role) -> wire.LoadReport:
        load, pulls = self._engine.load, self.arrivals.figures
        return wire.LoadReport(
            role=role,
            waiting=load.waiting,
            running=load.running,
            holding=load.holding,
            pulling=load.pulling,
            pending_prefill_tokens=load.pending_prefill_tokens,
            context_tokens=load.context_tokens,
            blocks_total=load.blocks_total,
            blocks_used=load.blocks_used,
            prefill_coefficients=load.prefill_coefficients,
            decode_coefficients=load.decode_coefficients,
            pull_bytes=pulls.bytes,
            pull_s=pulls.seconds,
            pulls=pulls.pulls,
            pull_failures=pulls.failures,
            quarantined_blocks=load.quarantined_blocks,
            leases=self.departures.leases,
            block_bytes=self._block_bytes,
            retained_blocks=load.retained_blocks,
            front_doors=len(self.sessions.relay),
            draining=self.draining,
            head_tokens=load.head_tokens,
            urgent=load.urgent,
            host=load.host,
        )

    async def close(self) -> None:
        await self.sources.close()


def kv_block_bytes(transfer: Transfer) -> int:
    """Of one block, on all ranks together."""
    return sum(region.block_bytes for region in (transfer.region, *transfer.others))
