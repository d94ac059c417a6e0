"""One move from the source's side. A pure state machine: `Departure.handle` takes an event and returns commands."""

from dataclasses import dataclass, field

from tercet import wire
from tercet.ids import FIRST_EPOCH, BlockId, Epoch, RequestId
from tercet.wire import GoneReason
from tercet.workers import events
from tercet.workers.move.phases import DEPARTURE_MOVES
from tercet.workers.move.phases import DeparturePhase as Phase
from tercet.workers.move.signals import (
    DepartureCommand,
    DepartureEvent,
    OwnerLost,
    ReaderLost,
    Recalled,
    Spoken,
    Tick,
    ToOwner,
    ToReader,
    Vanished,
)


@dataclass(slots=True)
class Departure:
    """One request on its way from here. It is ours, under `epoch`, until a destination says that it has committed.

    A hand-off is open before anybody pulls, stops by itself, and is of no use here if nobody comes. A `live` move begins
    with the first `Pull`; when it fails the request must run on, but one that was frozen may be somebody else's by now, and
    only its front door knows.
    """

    request: RequestId
    epoch: Epoch
    owner: str
    """The front door's session; of a live move known once it is held."""
    lease_s: float
    live: bool = False
    exposure: int = 0
    """Of a live move, by which the engine's answers are known: those to a move before it may still come."""
    phase: Phase = Phase.RUNNING
    blocks: list[BlockId] = field(default_factory=list)
    generations: list[int] = field(default_factory=list)
    tokens: int = 0
    """Covered by the blocks published so far."""
    held: events.Held | None = None
    exposed: bool = False
    """The engine was told to publish a live move's KV; a hand-off's it publishes by itself."""
    reader: str = ""
    """The peer link that pulls; empty when nobody does."""
    reader_epoch: Epoch = FIRST_EPOCH
    """Under which the last one that pulled would own the request."""
    skip: int = 0
    """Blocks the reader has already."""
    known_output: int = 0
    """Output tokens the reader has already."""
    expires_s: float = 0.0
    """End of the lease; a hand-off has one once it is held, a live move from the start."""

    @property
    def leased(self) -> bool:
        """Whether a destination is reading or may read at once."""
        return bool(self.reader) or self.held is not None

    def handle(self, event: DepartureEvent, now_s: float) -> list[DepartureCommand]:
        """One transition. What is late or irrelevant in this phase changes nothing."""
        if self.phase is Phase.OVER:
            return []
        match event:
            case events.Published(exposure=exposure) | events.Held(exposure=exposure) if (
                exposure != self.exposure
            ):
                return []
            case events.Published():
                return self._published(event)
            case events.Held():
                return self._held(event, now_s)
            case Vanished(finished):
                return self._end(
                    self._gone(GoneReason.FINISHED if finished else GoneReason.UNKNOWN)
                )
            case Spoken(reader, message):
                return self._hear(reader, message, now_s)
            case ReaderLost(reader):
                return self._reader_lost() if reader == self.reader else []
            case Recalled():
                return self._end(self._gone(GoneReason.UNKNOWN))
            case OwnerLost():
                drop = events.Drop(self.request, self.epoch)
                return self._end([drop], self._gone(GoneReason.UNKNOWN))
            case Tick():
                return self._expire(now_s) if self._expired(now_s) else []

    def validate(self) -> None:
        """Raises AssertionError when the parts contradict each other."""
        assert (self.held is not None) is (self.phase is Phase.FROZEN) or (
            self.phase is Phase.OVER
        ), self
        assert len(self.blocks) == len(self.generations), self
        assert self.live or self.phase is not Phase.FREEZING, self

    # ---- the engine --------------------------------------------------------------------------------------------------

    def _published(self, event: events.Published) -> list[DepartureCommand]:
        """The first time a live move publishes something it says so even if that is nothing: the request is here."""
        assert event.first <= len(self.blocks), f"a gap before {event}"
        self.blocks[event.first :] = event.blocks
        self.generations[event.first :] = event.generations
        self.tokens = event.tokens
        return self._ready(event.first)

    def _held(self, event: events.Held, now_s: float) -> list[DepartureCommand]:
        self._move_to(Phase.FROZEN)
        self.held, self.owner = event, event.owner
        self.expires_s = max(self.expires_s, now_s + self.lease_s)
        if self.live and not self.reader:
            return self._stalled("whoever pulled is gone")
        return self._committed()

    # ---- the destination ---------------------------------------------------------------------------------------------

    def _hear(
        self,
        reader: str,
        message: wire.Pull | wire.Freeze | wire.Renew | wire.Release,
        now_s: float,
    ) -> list[DepartureCommand]:
        if isinstance(message, wire.Pull):
            return self._pull(reader, message, now_s)
        return self._said(message, now_s) if reader == self.reader else []

    def _pull(self, reader: str, pull: wire.Pull, now_s: float) -> list[DepartureCommand]:
        """The front door has bound this destination; one before it must not wait for us."""
        exposing = self.live and not self.exposed
        replaced = self._gone(GoneReason.UNKNOWN) if self.reader != reader else []
        self.reader, self.reader_epoch = reader, pull.as_epoch
        self.skip, self.known_output = pull.held_blocks, pull.known_output
        self.expires_s = now_s + self.lease_s
        if exposing:
            self.exposed = True
            return [*replaced, events.Expose(self.request, self.epoch, self.exposure)]
        return [*replaced, *self._ready(0), *self._committed()]

    def _said(
        self, message: wire.Freeze | wire.Renew | wire.Release, now_s: float
    ) -> list[DepartureCommand]:
        match message:
            case wire.Freeze():
                if not self.live or self.phase is not Phase.RUNNING:
                    return []
                self._move_to(Phase.FREEZING)
                return [events.Freeze(self.request, self.epoch)]
            case wire.Renew():
                self.expires_s = now_s + self.lease_s
                return []
            case wire.Release(committed=True):
                return self._handed_off()
            case wire.Release():
                self.reader = ""
                self.expires_s = now_s + self.lease_s
                return self._stalled("the destination gave up") if self.live else []

    def _handed_off(self) -> list[DepartureCommand]:
        if self.live and self.held is None:
            return []  # nobody can have committed to what was not offered
        usage = wire.Usage()
        if self.held is not None:
            usage = wire.Usage(self.held.cached_tokens, self.held.computed_tokens)
        # A destination may take over before we are done, when its pulls fail: then there is nothing left to compute.
        done = events.Drop if self.held is None else events.Release
        said = ToOwner(self.owner, wire.HandedOff(self.request, self.epoch, usage))
        return self._end([done(self.request, self.epoch), said])

    def _reader_lost(self) -> list[DepartureCommand]:
        """The lease of a hand-off runs on: another destination may come. What ran is wanted back at once."""
        self.reader = ""
        return self._stalled("the link to whoever pulled is lost") if self.live else []

    # ---- time --------------------------------------------------------------------------------------------------------

    def _expired(self, now_s: float) -> bool:
        leased = self.live or self.held is not None
        return leased and self.expires_s <= now_s

    def _expire(self, now_s: float) -> list[DepartureCommand]:
        reason = f"nobody took over within the lease of {self.lease_s:g} s"
        if self.live:
            self.expires_s = now_s + self.lease_s
            return self._stalled(reason)
        release = events.Release(self.request, self.epoch)
        failed = ToOwner(self.owner, wire.Failed(self.request, self.epoch, reason))
        return self._end([release, failed], self._gone(GoneReason.UNKNOWN))

    def _stalled(self, reason: str) -> list[DepartureCommand]:
        """The pull is over. A request that was not frozen runs on as if nothing had been; of a frozen one its front door
        says what is to become of it, and is asked again after every lease."""
        match self.phase:
            case Phase.FROZEN:
                return [ToOwner(self.owner, wire.Stalled(self.request, self.epoch, reason))]
            case Phase.FREEZING:
                return []  # see `_held`
            case _:
                thaw = events.Thaw(self.request, self.epoch)
                return self._end([thaw], self._gone(GoneReason.UNKNOWN))

    # ---- what is said ------------------------------------------------------------------------------------------------

    def _ready(self, first: int) -> list[DepartureCommand]:
        """What the reader may read from block number `first` on; for a live move also that there is nothing yet."""
        first = max(first, self.skip)
        if not self.reader or (first >= len(self.blocks) and not self.live):
            return []
        blocks, generations = self.blocks[first:], self.generations[first:]
        ready = wire.Ready(self.request, self.epoch, first, blocks, generations, self.tokens)
        return [ToReader(self.reader, ready)]

    def _committed(self) -> list[DepartureCommand]:
        """The end of what there is to read, if it has come to that."""
        held = self.held
        if not self.reader or held is None:
            return []
        logprobs = None
        if held.logprobs is not None:
            unknown = min(len(held.output) - self.known_output, len(held.logprobs))
            logprobs = list(held.logprobs[len(held.logprobs) - unknown :])
        commit = wire.Commit(self.request, self.epoch, list(held.output), held.tokens, logprobs)
        return [ToReader(self.reader, commit)]

    def _gone(self, reason: GoneReason) -> list[DepartureCommand]:
        return (
            [ToReader(self.reader, wire.Gone(self.request, self.epoch, reason))]
            if self.reader
            else []
        )

    def _end(self, *commands: list[DepartureCommand]) -> list[DepartureCommand]:
        self._move_to(Phase.OVER)
        return [command for some in commands for command in some]

    def _move_to(self, phase: Phase) -> None:
        assert phase in DEPARTURE_MOVES[self.phase], f"{self.phase} -> {phase}: {self!r}"
        self.phase = phase
