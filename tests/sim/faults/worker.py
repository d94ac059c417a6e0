"""A simulated worker: the production switchboard, with everything behind it, on simulated engine, transfer and links."""

from faults.engine import SimEngine
from faults.packing import SimPacking, SimUnpacker, packing_terms, pull_terms
from faults.process import Process
from faults.story import shown
from faults.transfer import SimAgent, SimTransfer
from faults.transport import End
from tercet.config import ClusterConfig
from tercet.errors import PeerLost
from tercet.wire import Endpoint, Hello, Refuse, Welcome
from tercet.workers.events import Event
from tercet.workers.greeting import Greeting
from tercet.workers.move import Packed
from tercet.workers.switchboard import Switchboard
from tercet.workers.transfer import TransferEvent


class Worker(Process):
    """One life of a worker."""

    def __init__(self, world: object, actor: object) -> None:
        super().__init__(f"{actor}", world.network)
        self.world, self.actor = world, actor
        worker, role = actor.seat, actor.role
        self.address = worker if world.chaos.same_places else self.name
        config: ClusterConfig = world.config
        self.endpoint = Endpoint(worker, actor.incarnation, role, "here", 1, "here", self.address)
        self.engine = SimEngine(self, config.engine_of(role), self._on_engine)
        self.agent = SimAgent(self)
        slots = world.chaos.slots()
        self.packing = SimPacking(self, slots, self._on_packed) if slots else None
        self.unpacker = SimUnpacker(self, slots) if slots else None
        self.transfer = SimTransfer(
            self, config.transfer, self.agent, self._on_transfer, self.packing, self.unpacker
        )
        self._greeting = Greeting(
            config.name,
            worker,
            self.endpoint.incarnation,
            "toy",
            self.transfer.region,
            self.transfer.staged,
        )
        self.board = Switchboard(
            config,
            self.engine,
            self.transfer,
            self._greeting.hello,
            block_tokens=config.engine.block_tokens,
            host_id="here",
            clock=world.timeline,
            packing=self.packing,
        )
        if slots:
            dice, blocks_max = world.chaos.dice, max(1, slots // 2)
            self.board.departures._packing = packing_terms(blocks_max)
            self.board.arrivals._terms = pull_terms(self.board.arrivals._terms, dice, blocks_max)
        self._period_s = config.link.report_period_s
        self.loop.call_later(world.chaos.dice.uniform(0, self._period_s), self._beat)

    def answer(self, hello: Hello) -> Welcome | Refuse:
        if hello.expects != self.endpoint.incarnation:
            return Refuse(f"incarnation {hello.expects} is gone")
        return self._greeting.answer(hello)

    def serve(self, hello: Hello, end: End) -> None:
        self.loop.create_task(self._serve(hello, end))

    async def _serve(self, hello: Hello, end: End) -> None:
        try:
            await self.board.serve(hello, end)
        except PeerLost:
            pass
        finally:
            await end.close()

    def drain(self) -> None:
        self.board.drain(self.endpoint.role)

    def _on_packed(self, event: Packed) -> None:
        self.board.on_packed(event)

    def _on_engine(self, events: list[Event]) -> None:
        if self.network.story.wanted:
            for event in events:
                self.network.story.tell(self, f"  engine says {shown(event)}")
        self.board.on_engine(events)

    def _on_transfer(self, event: TransferEvent) -> None:
        if self.network.story.wanted:
            self.network.story.tell(self, f"  transfer says {event}")
        self.loop.call_soon(self.board.on_transfer, event)

    def _beat(self) -> None:
        self.board.beat(self.endpoint.role)
        self.loop.call_later(self._period_s, self._beat)
