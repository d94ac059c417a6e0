"""The source's side of all hand-offs: what is published, who reads it, and for how long it is kept. Pure.

A request to be handed off runs here first. While it runs its blocks are its own; once it is `Held` they wait for a reader,
under a lease that a reader renews. The lease ends with the reader's `Release`, or by itself, and then the request is over
here: the blocks stay as prefix cache, and whoever owns the request is told.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

import msgspec

from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import (
    Commit,
    Failed,
    Gone,
    GoneReason,
    HandedOff,
    Pull,
    Ready,
    Renew,
    Tokens,
    Usage,
)
from tercet.wire import Release as ReleaseLease
from tercet.workers.events import Drop, Ended, Held, Published, Release, Said

FINISHED_MAX = 4096
"""How many requests that ended with their first token are remembered, for destinations that ask late."""

Key = tuple[RequestId, Epoch]


class ToReader(msgspec.Struct, frozen=True):
    """A message for the peer link named `reader`."""

    reader: str
    message: Ready | Commit | Gone


class ToOwner(msgspec.Struct, frozen=True):
    """A message for the front door's session named `owner`."""

    owner: str
    message: HandedOff | Failed


Command = ToReader | ToOwner | Release | Drop
"""`Release` and `Drop` are for the engine."""


@dataclass(slots=True)
class Export:
    """One request that is to be handed off."""

    request: RequestId
    epoch: Epoch
    owner: str
    blocks: list[BlockId] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    tokens: int = 0
    held: Held | None = None
    reader: str = ""
    """The peer link that pulls; empty when nobody does."""
    skip: int = 0
    """Blocks the reader has already."""
    expires_s: float = 0.0
    """End of the lease; means something once the request is held."""

    def ready(self, first: int) -> list[Command]:
        """What the reader may read from block number `first` on."""
        first = max(first, self.skip)
        if not self.reader or first >= len(self.blocks):
            return []
        message = Ready(
            self.request,
            self.epoch,
            first,
            self.blocks[first:],
            self.generations[first:],
            self.tokens,
        )
        return [ToReader(self.reader, message)]

    def committed(self) -> list[Command]:
        """The end of what there is to read, if it has come to that."""
        if not self.reader or self.held is None:
            return []
        logprobs = None if self.held.logprobs is None else list(self.held.logprobs)
        message = Commit(self.request, self.epoch, list(self.held.output), logprobs)
        return [ToReader(self.reader, message)]

    def gone(self, reason: GoneReason) -> list[Command]:
        if not self.reader:
            return []
        return [ToReader(self.reader, Gone(self.request, self.epoch, reason))]


class Exports:
    """All of a worker's exports. Leases are durations on our own clock: `now_s` is given with every call that needs it."""

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._exports: dict[Key, Export] = {}
        self._finished: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._exports)

    @property
    def leases(self) -> int:
        """Requests a destination is reading or may read at once."""
        return sum(1 for export in self._exports.values() if export.reader or export.held)

    # ---- from the front door -----------------------------------------------------------------------------------------

    def open(self, request: RequestId, epoch: Epoch, owner: str) -> None:
        """A request is given to the engine, to be handed off after its first token. Idempotent, as the engine is."""
        self._exports.setdefault((request, epoch), Export(request, epoch, owner))

    def owner_lost(self, owner: str) -> list[Command]:
        """A front door is gone: nobody will bind a destination to what is held for it."""
        lost = [key for key, export in self._exports.items() if export.owner == owner]
        commands: list[Command] = []
        for key in lost:
            export = self._exports.pop(key)
            commands += [Drop(export.request, export.epoch), *export.gone(GoneReason.UNKNOWN)]
        return commands

    # ---- from the engine ---------------------------------------------------------------------------------------------

    def on_engine(self, event: Published | Held | Ended | Said, now_s: float) -> list[Command]:
        """Events of other requests are ignored."""
        match event:
            case Said(message=Tokens(request=request, epoch=epoch, finish=finish)):
                if finish is not None and (request, epoch) in self._exports:
                    self._remember((request, epoch))
                return []
            case Said():
                return []
        export = self._exports.get((event.request, event.epoch))
        if export is None:
            return []
        match event:
            case Published():
                assert event.first <= len(export.blocks), f"a gap before {event}"
                export.blocks[event.first :] = event.blocks
                export.generations[event.first :] = event.generations
                export.tokens = event.tokens
                return export.ready(event.first)
            case Held():
                export.held = event
                export.expires_s = max(export.expires_s, now_s + self._lease_s)
                return export.committed()
            case Ended():
                key = (event.request, event.epoch)
                del self._exports[key]
                finished = key in self._finished
                return export.gone(GoneReason.FINISHED if finished else GoneReason.UNKNOWN)

    # ---- from destinations -------------------------------------------------------------------------------------------

    def on_reader(
        self, reader: str, message: Pull | Renew | ReleaseLease, now_s: float
    ) -> list[Command]:
        """A message that came over the peer link named `reader`."""
        match message:
            case Pull():
                return self._pull(reader, message, now_s)
            case Renew():
                for request, epoch in message.requests:
                    export = self._exports.get((request, epoch))
                    if export is not None and export.reader == reader:
                        export.expires_s = now_s + self._lease_s
                return []
            case ReleaseLease():
                return self._release(reader, message, now_s)

    def reader_lost(self, reader: str) -> None:
        """A peer link is gone. Its leases run out, so that another destination may still come."""
        for export in self._exports.values():
            if export.reader == reader:
                export.reader = ""

    def tick(self, now_s: float) -> list[Command]:
        """End the leases that nobody has renewed."""
        over = [
            key
            for key, export in self._exports.items()
            if export.held is not None and export.expires_s <= now_s
        ]
        commands: list[Command] = []
        for key in over:
            export = self._exports.pop(key)
            request, epoch = key
            reason = f"nobody took over within the lease of {self._lease_s:g} s"
            commands += [
                Release(request, epoch),
                ToOwner(export.owner, Failed(request, epoch, reason)),
                *export.gone(GoneReason.UNKNOWN),
            ]
        return commands

    def _pull(self, reader: str, pull: Pull, now_s: float) -> list[Command]:
        key = (pull.request, pull.epoch)
        export = self._exports.get(key)
        if export is None:
            reason = GoneReason.FINISHED if key in self._finished else GoneReason.UNKNOWN
            return [ToReader(reader, Gone(pull.request, pull.epoch, reason))]
        # The front door has bound another destination: the one before it must not wait for us.
        replaced = export.gone(GoneReason.UNKNOWN) if export.reader != reader else []
        export.reader, export.skip = reader, pull.held_blocks
        export.expires_s = now_s + self._lease_s
        return [*replaced, *export.ready(0), *export.committed()]

    def _release(self, reader: str, release: ReleaseLease, now_s: float) -> list[Command]:
        key = (release.request, release.epoch)
        export = self._exports.get(key)
        if export is None or export.reader != reader:
            return []
        if not release.committed:
            export.reader = ""
            export.expires_s = now_s + self._lease_s
            return []
        del self._exports[key]
        usage = Usage()
        if export.held is not None:
            usage = Usage(export.held.cached_tokens, export.held.computed_tokens)
        # A destination may take over before we are done, when its pulls fail: then there is nothing left to compute.
        engine = Drop(*key) if export.held is None else Release(*key)
        return [engine, ToOwner(export.owner, HandedOff(*key, usage))]

    def _remember(self, key: Key) -> None:
        self._finished[key] = None
        while len(self._finished) > FINISHED_MAX:
            self._finished.popitem(last=False)
