"""All moves to this worker: brings events to their state machines and carries out what these order."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tercet import wire
from tercet.clock import Clock
from tercet.config import TransferConfig
from tercet.ids import Epoch, RequestId
from tercet.workers import events
from tercet.workers.move import (
    Arrival,
    ArrivalCommand,
    ArrivalEvent,
    ArrivalPhase,
    Cancelled,
    Intake,
    Linked,
    LinkLost,
    Outcome,
    Tick,
)
from tercet.workers.sources import FromSource, agent_name
from tercet.workers.transfer import Pulled, PullFailed, PullJob, TransferEvent
from tercet.workers.transfer.codec_choice import Codec, CodecChoice, Observation

logger = logging.getLogger(__name__)

SILENCE_LEASES = 3
"""A source that is alive but says nothing about a request for so many lease durations is given up."""

Key = tuple[RequestId, Epoch]


class Inbox(Protocol):
    """Where the engine gets its commands from; an `EngineThread` is one."""

    def post(self, *commands: events.Command) -> None: ...


class Puller(Protocol):
    """What copies KV; a `Transfer` is one."""

    def pull(self, job: PullJob) -> None: ...


class SourceLinks(Protocol):
    """The links to those we pull from; `Sources` is one."""

    def require(self, endpoint: wire.Endpoint) -> None: ...
    def post(
        self, name: str, message: wire.Pull | wire.Freeze | wire.Took | wire.Renew | wire.Release
    ) -> None: ...


class PullTerms(NamedTuple):
    """What a destination knows of its KV and of how it may be packed."""

    block_tokens: int
    block_bytes: int
    choice: CodecChoice
    packed_blocks_max: int = 1
    """In one pull."""


@dataclass(slots=True)
class PullFigures:
    """Since the worker started."""

    pulls: int = 0
    failures: int = 0
    bytes: int = 0
    seconds: float = 0.0
    """Sum over pulls, which may overlap."""

    def count(self, event: TransferEvent) -> None:
        match event:
            case Pulled():
                self.pulls += 1
                self.bytes += event.bytes
                self.seconds += event.seconds
            case PullFailed():
                self.failures += 1


class Arrivals:
    """Used on the event loop only. `sources` delivers to `on_source`, the transfer's events come to `on_transfer`."""

    def __init__(
        self,
        engine: Inbox,
        transfer: Puller,
        sources: SourceLinks,
        config: TransferConfig,
        terms: PullTerms,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._transfer = transfer
        self._sources = sources
        self._config = config
        self._terms = terms
        self._clock = clock
        self._arrivals: dict[Key, Arrival] = {}
        self._owners: dict[Key, str] = {}
        self._asked: dict[tuple[str, RequestId, Epoch], Key] = {}
        """By the source and the epoch under which it speaks."""
        self.figures = PullFigures()
        self.outcomes: Counter[Outcome] = Counter()

    def __len__(self) -> int:
        return len(self._arrivals)

    def begin(self, owner: str, order: wire.Adopt) -> None:
        """Reserve blocks and open the link to the source at the same time."""
        spec, key = order.spec, (order.spec.id, order.epoch)
        if key in self._arrivals:
            return  # the same order again
        peer, output = agent_name(order.source), tuple(order.output)
        self._arrivals[key] = Arrival(
            request=spec.id,
            epoch=order.epoch,
            source_epoch=order.source_epoch,
            peer=peer,
            output=output,
            intake=self._intake(peer, order),
            silence_s_max=SILENCE_LEASES * self._config.lease_s,
            heard_s=self._clock.now_s(),
            live=order.live,
        )
        self._owners[key] = owner
        self._asked[peer, spec.id, order.source_epoch] = key
        self._engine.post(events.Reserve(spec, order.epoch, owner, output, order.live))
        self._sources.require(order.source)

    def _intake(self, peer: str, order: wire.Adopt) -> Intake:
        """How its KV travels is decided here, once, by what its log has now."""
        terms, prompt = self._terms, len(order.spec.prompt)
        kv_bytes = (prompt + len(order.output)) * terms.block_bytes // terms.block_tokens
        return Intake(
            terms.block_tokens,
            tokens_max=prompt + order.spec.sampling.max_tokens,
            grows=order.live,
            codec=terms.choice.choose(peer, kv_bytes),
            packed_blocks_max=terms.packed_blocks_max,
        )

    def cancel(self, request: RequestId, epoch: Epoch) -> None:
        """End every move of this request up to `epoch`."""
        self._cancel([key for key in self._arrivals if key[0] == request and key[1] <= epoch])

    def owner_lost(self, owner: str) -> None:
        """End every move that this front door's session had ordered."""
        self._cancel([key for key, whose in self._owners.items() if whose == owner])

    def on_engine(self, event: events.Reserved | events.Extended | events.Ended) -> None:
        self._handle((event.request, event.epoch), event)

    def on_source(self, peer: str, event: FromSource) -> None:
        """What a source says about one request, or what happened to the link of all of its requests."""
        if isinstance(event, LinkLost):
            self._terms.choice.forget(peer)
        if isinstance(event, Linked | LinkLost):
            for key in [key for key, each in self._arrivals.items() if each.peer == peer]:
                self._handle(key, event)
            return
        asked = self._asked.get((peer, event.request, event.epoch))
        if asked is not None:
            self._handle(asked, event)

    def on_transfer(self, event: TransferEvent) -> None:
        self.figures.count(event)
        key = (event.job.request, event.job.epoch)
        arrival = self._arrivals.get(key)
        # A peer that is lost was forgotten and must not be learned of again.
        if isinstance(event, Pulled) and arrival is not None and arrival.leased:
            self._learn(arrival, event)
        self._handle(key, event)

    def _learn(self, arrival: Arrival, event: Pulled) -> None:
        """What this pull says about the link, and about its codec."""
        flight = arrival.flight
        assert flight is not None, f"{event} without a pull: {arrival}"
        packed = event.codec is not Codec.NONE
        pack_s = arrival.intake.pack_s(flight) if packed else 0.0
        seen = Observation(
            event.codec,
            kv_bytes=len(flight.local_blocks) * self._terms.block_bytes,
            wire_bytes=event.bytes,
            wire_s=event.seconds - event.decode_s,
            total_s=event.seconds + pack_s,
        )
        self._terms.choice.observe(arrival.peer, seen)

    def tick(self) -> None:
        for key in list(self._arrivals):
            self._handle(key, Tick())

    def renew(self) -> None:
        """Tell every source which leases are still wanted."""
        wanted: defaultdict[str, list[Key]] = defaultdict(list)
        for arrival in self._arrivals.values():
            if arrival.leased:
                wanted[arrival.peer].append((arrival.request, arrival.source_epoch))
        for peer, leases in wanted.items():
            self._sources.post(peer, wire.Renew(leases))

    def _cancel(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._handle(key, Cancelled())

    def _handle(self, key: Key, event: ArrivalEvent) -> None:
        arrival = self._arrivals.get(key)
        if arrival is None:
            return
        for command in arrival.handle(event, self._clock.now_s()):
            self._carry_out(arrival.peer, command)
        if arrival.phase is ArrivalPhase.OVER:
            self._forget(key, arrival)
            self._conclude(arrival)

    def _forget(self, key: Key, arrival: Arrival) -> None:
        del self._arrivals[key], self._owners[key]
        asked = (arrival.peer, arrival.request, arrival.source_epoch)
        if self._asked.get(asked) == key:  # a later move from there may have ended before this one
            del self._asked[asked]

    def validate(self) -> None:
        """Raises AssertionError when a state machine contradicts itself."""
        for arrival in self._arrivals.values():
            arrival.validate()

    def _carry_out(self, peer: str, command: ArrivalCommand) -> None:
        match command:
            case wire.Pull() | wire.Freeze() | wire.Took() | wire.Release():
                self._sources.post(peer, command)
            case PullJob():
                self._transfer.pull(command)
            case _:
                self._engine.post(command)

    def _conclude(self, arrival: Arrival) -> None:
        assert arrival.outcome is not None, arrival
        self.outcomes[arrival.outcome] += 1
        if arrival.outcome in (Outcome.RECOMPUTED, Outcome.DECLINED):
            logger.warning(
                "%s is %s here instead of pulled from %s: %s",
                arrival.request,
                arrival.outcome,
                arrival.peer,
                arrival.reason,
            )
