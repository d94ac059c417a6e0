"""All hand-offs on their way to this worker: brings events to their state machines and carries out what these order."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from tercet import wire
from tercet.clock import Clock
from tercet.config import TransferConfig
from tercet.ids import Epoch, RequestId
from tercet.workers import events
from tercet.workers.hand_off import (
    Cancelled,
    Command,
    Event,
    HandOff,
    Intake,
    Linked,
    LinkLost,
    Outcome,
    Phase,
    Tick,
)
from tercet.workers.sources import FromSource, agent_name
from tercet.workers.transfer import Pulled, PullFailed, PullJob, TransferEvent

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
    def post(self, name: str, message: wire.Pull | wire.Renew | wire.Release) -> None: ...


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


class Adoptions:
    """Used on the event loop only. `sources` delivers to `on_source`, the transfer's events come to `on_transfer`."""

    def __init__(
        self,
        engine: Inbox,
        transfer: Puller,
        sources: SourceLinks,
        config: TransferConfig,
        block_tokens: int,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._transfer = transfer
        self._sources = sources
        self._config = config
        self._block_tokens = block_tokens
        self._clock = clock
        self._hand_offs: dict[Key, HandOff] = {}
        self._owners: dict[Key, str] = {}
        self.figures = PullFigures()
        self.outcomes: Counter[Outcome] = Counter()

    def __len__(self) -> int:
        return len(self._hand_offs)

    def begin(self, owner: str, order: wire.Adopt) -> None:
        """Reserve blocks and open the link to the source at the same time."""
        spec, key = order.spec, (order.spec.id, order.epoch)
        if key in self._hand_offs:
            return  # the same order again
        self._hand_offs[key] = HandOff(
            request=spec.id,
            epoch=order.epoch,
            peer=agent_name(order.source),
            prompt_tokens=len(spec.prompt),
            output=tuple(order.output),
            intake=Intake(self._block_tokens),
            silence_s_max=SILENCE_LEASES * self._config.lease_s,
            heard_s=self._clock.now_s(),
        )
        self._owners[key] = owner
        self._engine.post(events.Reserve(spec, order.epoch, owner, tuple(order.output)))
        self._sources.require(order.source)

    def cancel(self, request: RequestId, epoch: Epoch) -> None:
        """End every hand-off of this request up to `epoch`."""
        self._cancel([key for key in self._hand_offs if key[0] == request and key[1] <= epoch])

    def owner_lost(self, owner: str) -> None:
        """End every hand-off that this front door's session had ordered."""
        self._cancel([key for key, whose in self._owners.items() if whose == owner])

    def on_engine(self, event: events.Reserved | events.Ended) -> None:
        self._handle((event.request, event.epoch), event)

    def on_source(self, peer: str, event: FromSource) -> None:
        """What a source says about one request, or what happened to the link of all of its requests."""
        if isinstance(event, Linked | LinkLost):
            for key in [key for key, each in self._hand_offs.items() if each.peer == peer]:
                self._handle(key, event)
            return
        key = (event.request, Epoch(event.epoch + 1))
        hand_off = self._hand_offs.get(key)
        if hand_off is not None and hand_off.peer == peer:
            self._handle(key, event)

    def on_transfer(self, event: TransferEvent) -> None:
        self.figures.count(event)
        self._handle((event.job.request, event.job.epoch), event)

    def tick(self) -> None:
        for key in list(self._hand_offs):
            self._handle(key, Tick())

    def renew(self) -> None:
        """Tell every source which leases are still wanted."""
        wanted: defaultdict[str, list[Key]] = defaultdict(list)
        for hand_off in self._hand_offs.values():
            if hand_off.leased:
                wanted[hand_off.peer].append((hand_off.request, hand_off.source_epoch))
        for peer, leases in wanted.items():
            self._sources.post(peer, wire.Renew(leases))

    def _cancel(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._handle(key, Cancelled())

    def _handle(self, key: Key, event: Event) -> None:
        hand_off = self._hand_offs.get(key)
        if hand_off is None:
            return
        for command in hand_off.handle(event, self._clock.now_s()):
            self._carry_out(hand_off.peer, command)
        if hand_off.phase is Phase.OVER:
            del self._hand_offs[key], self._owners[key]
            self._conclude(hand_off)

    def _carry_out(self, peer: str, command: Command) -> None:
        match command:
            case wire.Pull() | wire.Release():
                self._sources.post(peer, command)
            case PullJob():
                self._transfer.pull(command)
            case _:
                self._engine.post(command)

    def _conclude(self, hand_off: HandOff) -> None:
        assert hand_off.outcome is not None, hand_off
        self.outcomes[hand_off.outcome] += 1
        if hand_off.outcome is Outcome.RECOMPUTED:
            logger.warning(
                "%s is recomputed here instead of pulled from %s: %s",
                hand_off.request,
                hand_off.peer,
                hand_off.reason,
            )
