"""Both sides of a simulated worker's moves: the production state machines, on a modelled network."""

from collections.abc import Callable, Iterable

from tercet import wire
from tercet.config import ClusterConfig
from tercet.ids import Epoch, FrontDoorId, RequestId
from tercet.router.events import WorkerWord
from tercet.simulator.fabric import Fabric, FromReader, FromSource, Member
from tercet.simulator.timeline import Timeline
from tercet.workers import events
from tercet.workers.arrivals import Arrivals, Inbox, PullTerms
from tercet.workers.departures import Departures
from tercet.workers.move import (
    Linked,
    LinkLost,
    Pack,
    SourceCommand,
    ToOwner,
    ToReader,
    Unstage,
)
from tercet.workers.sources import agent_name
from tercet.workers.transfer import Pulled, PullFailed, PullJob
from tercet.workers.transfer.codec_choice import CodecChoice

Tell = Callable[[str, WorkerWord], None]


class HandOffs:
    """What `Switchboard`, `Readers` and `Sources` are in production, for one machine."""

    def __init__(
        self,
        member: Member,
        engine: Inbox,
        fabric: Fabric,
        timeline: Timeline,
        config: ClusterConfig,
        *,
        block_tokens: int,
        block_bytes: int,
        tell: Tell,
    ) -> None:
        self._member, self._engine, self._fabric, self._timeline = member, engine, fabric, timeline
        self._block_bytes, self._tell = block_bytes, tell
        self._period_s = config.transfer.renew_s
        self._sources: dict[str, bool] = {}
        """Links to those we pull from, and whether they stand yet."""
        self._readers: set[str] = set()
        self._beating = False
        self.departures = Departures(config.transfer.lease_s)
        # Packing is not modelled: nobody asks for a codec here, whatever the cluster file allows.
        terms = PullTerms(block_tokens, block_bytes, CodecChoice(()))
        self.arrivals = Arrivals(engine, self, self, config.transfer, terms, timeline)

    def __len__(self) -> int:
        return len(self.departures) + len(self.arrivals)

    # ---- orders of front doors ---------------------------------------------------------------------------------------

    def open(self, owner: FrontDoorId, order: wire.Submit) -> None:
        """A request is going to be handed off from here."""
        self.departures.open(order.spec.id, order.epoch, owner)
        self._keep_beating()

    def begin(self, owner: FrontDoorId, order: wire.Adopt) -> None:
        """A request is to be handed off to here."""
        self.arrivals.begin(owner, order)
        self._keep_beating()

    def resume(self, owner: FrontDoorId, order: wire.Resume) -> None:
        """A request that was to move away is to run on here."""
        self._carry_out(self.departures.resume(owner, order, self._timeline.now_s()))

    def cancel(self, request: RequestId, epoch: Epoch) -> None:
        """End every move of this request to here, up to `epoch`."""
        self.arrivals.cancel(request, epoch)

    def owner_lost(self, owner: FrontDoorId) -> None:
        self.arrivals.owner_lost(owner)
        self._engine.post(events.DropOwner(owner))
        self._carry_out(self.departures.owner_lost(owner, self._timeline.now_s()))

    # ---- the engine --------------------------------------------------------------------------------------------------

    def on_engine(self, step: list[events.Event]) -> None:
        """Everything that happened in one step."""
        now_s = self._timeline.now_s()
        for event in step:
            match event:
                case events.Said(owner=owner, message=message):
                    assert not isinstance(message, wire.MoveWanted), "nobody told it to relieve"
                    self._tell(owner, message)
                    if isinstance(message, wire.Tokens) and message.finish is not None:
                        self._carry_out(self.departures.on_engine(event, now_s))
                case events.Reserved() | events.Extended():
                    self.arrivals.on_engine(event)
                case events.Published() | events.Held() | events.Absent():
                    self._carry_out(self.departures.on_engine(event, now_s))
                case events.Ended():
                    self.arrivals.on_engine(event)
                    self._carry_out(self.departures.on_engine(event, now_s))

    # ---- peers -------------------------------------------------------------------------------------------------------

    def linked(self, source: str, there: bool) -> None:
        if there:
            self._sources[source] = True
            self.arrivals.on_source(source, Linked())
        else:
            self._source_lost(source, "nobody there")

    def from_reader(self, reader: str, message: FromReader) -> None:
        self._readers.add(reader)
        self._carry_out(self.departures.on_reader(reader, message, self._timeline.now_s()))

    def from_source(self, source: str, message: FromSource) -> None:
        if self._sources.get(source):
            self.arrivals.on_source(source, message)

    def unlinked(self, peer: str) -> None:
        self._reader_lost(peer)
        self._source_lost(peer, "silent for too long")

    def forsaken(self) -> None:
        """All peers have closed their links with us."""
        for source in list(self._sources):
            self._source_lost(source, "closed")
        for reader in self._readers:
            self._reader_lost(reader)

    def pulled(self, event: Pulled | PullFailed) -> None:
        self.arrivals.on_transfer(event)

    def _reader_lost(self, reader: str) -> None:
        self._carry_out(self.departures.reader_lost(reader, self._timeline.now_s()))

    def _source_lost(self, source: str, reason: str) -> None:
        if self._sources.pop(source, None) is not None:
            self.arrivals.on_source(source, LinkLost(reason))

    def beat(self) -> None:
        """What is done from time to time, while there is anything to do it for."""
        self._carry_out(self.departures.tick(self._timeline.now_s()))
        self.arrivals.tick()
        self.arrivals.renew()
        self._beating = False
        if len(self):
            self._keep_beating()

    # ---- what arrivals ask for (`SourceLinks`, `Puller`) ------------------------------------------------------------

    def require(self, endpoint: wire.Endpoint) -> None:
        source = agent_name(endpoint)
        if source not in self._sources:
            self._sources[source] = False
            self._fabric.open(self._member, source)
        elif self._sources[source]:
            self.arrivals.on_source(source, Linked())

    def post(self, name: str, message: FromReader) -> None:
        self._fabric.to_source(self._member.agent, name, message)

    def pull(self, job: PullJob) -> None:
        self._fabric.pull(self._member, job, len(job.remote_blocks) * self._block_bytes)

    # ---- carrying out ------------------------------------------------------------------------------------------------

    def _carry_out(self, commands: Iterable[SourceCommand]) -> None:
        for command in commands:
            match command:
                case ToReader(reader, message):
                    self._fabric.to_reader(self._member.agent, reader, message)
                case ToOwner(owner, message):
                    self._tell(owner, message)
                case Pack() | Unstage():
                    raise AssertionError(f"nobody asked for a codec: {command}")
                case _:
                    self._engine.post(command)

    def _keep_beating(self) -> None:
        if not self._beating:
            self._beating = True
            self._timeline.call_later(self._period_s, self._member.beat)
