"""One move from the destination's side. A pure state machine: `Arrival.handle` takes an event and returns commands."""

from dataclasses import dataclass

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers import events
from tercet.workers.move.intake import Intake
from tercet.workers.move.phases import ARRIVAL_MOVES
from tercet.workers.move.phases import ArrivalPhase as Phase
from tercet.workers.move.signals import (
    ArrivalCommand,
    ArrivalEvent,
    Cancelled,
    Linked,
    LinkLost,
    Outcome,
    Tick,
    ToEngine,
)
from tercet.workers.transfer.base import Pulled, PullFailed, PullJob, Settled
from tercet.workers.transfer.codec_choice import Codec

TAIL_BLOCKS_MAX = 1
"""A live request is frozen when no more than this is still to be pulled: then freezing takes no longer for a long context."""
ROUNDS_MAX = 3
"""Or in this round, however much that is: the source fills blocks faster than they can be pulled."""
ROOM_BLOCKS = 4
"""So much more than the source has published is asked of the engine, so that a growing request need not wait for blocks."""


@dataclass(slots=True)
class Arrival:
    """One request on its way here. When a `live` one fails it stays where it is; a hand-off's source is done with it."""

    request: RequestId
    epoch: Epoch
    """Ours."""
    source_epoch: Epoch
    peer: str
    """The source's agent."""
    output: tuple[int, ...]
    """Output tokens that were known when the move began."""
    intake: Intake
    silence_s_max: float
    """A source that is linked but says nothing for this long is given up: its engine may hang."""
    heard_s: float
    """When the source last said something; at first, when the move began."""
    live: bool = False
    phase: Phase = Phase.RESERVING
    outcome: Outcome | None = None
    reason: str = ""
    """Why it was recomputed, declined or dropped."""
    linked: bool = False
    lost: str = ""
    """Why there will be no link, when that was known before the engine had answered."""
    flight: PullJob | None = None
    freezing: bool = False
    """The source was told to stop it."""
    commit: wire.Commit | None = None
    commit_s: float = 0.0
    pulled_bytes: int = 0
    pull_s: float = 0.0
    pulled_codec: Codec = Codec.NONE
    """Of what came packed, if any did."""

    @property
    def leased(self) -> bool:
        """Whether the source keeps KV for us: the lease must be renewed."""
        return self.phase is Phase.PULLING and self.linked

    def handle(self, event: ArrivalEvent, now_s: float) -> list[ArrivalCommand]:
        """One transition. What is late or irrelevant in this phase changes nothing."""
        if isinstance(event, Pulled | PullFailed | Settled):
            return self._on_transfer(event, now_s)
        match self.phase:
            case Phase.RESERVING:
                return self._while_reserving(event, now_s)
            case Phase.LINKING:
                return self._while_linking(event, now_s)
            case Phase.PULLING:
                return self._while_pulling(event, now_s)
            case Phase.SETTLING | Phase.OVER:
                return []

    # ---- phases ------------------------------------------------------------------------------------------------------

    def _while_reserving(self, event: ArrivalEvent, now_s: float) -> list[ArrivalCommand]:
        match event:
            case events.Reserved():
                self.intake.reserve(event.blocks, event.held_blocks)
                self._move_to(Phase.LINKING)
                if self.lost:
                    return self._give_up(self.lost)
                return self._ask(now_s) if self.linked else []
            case Linked():
                self.linked = True
            case LinkLost(reason):
                self.lost, self.linked = reason, False
            case Cancelled():
                return self._drop("cancelled")
            case events.Ended():
                return self._vanish()
        return []

    def _while_linking(self, event: ArrivalEvent, now_s: float) -> list[ArrivalCommand]:
        match event:
            case Linked():
                self.linked = True
                return self._ask(now_s)
            case LinkLost(reason):
                return self._give_up(reason)
            case Cancelled():
                return self._drop("cancelled")
            case Tick():
                return self._mind_silence(now_s)
            case events.Ended():
                return self._vanish()
        return []

    def _while_pulling(self, event: ArrivalEvent, now_s: float) -> list[ArrivalCommand]:
        match event:
            case wire.Ready():
                self.heard_s = now_s
                return self._offered(event, now_s)
            case wire.Commit():
                self.heard_s = self.commit_s = now_s
                self.commit = event
                return self._proceed(now_s)
            case events.Extended():
                return self._extended(event, now_s)
            case wire.Gone(reason=wire.GoneReason.FINISHED) if not self.live:
                # The front door knows and cancels. But it may have lost the source's last word, and then waits for ours.
                self.linked, self.heard_s = False, now_s
                return []
            case wire.Gone():
                self.linked = False
                return self._give_up("the source does not have it")
            case LinkLost(reason):
                self.linked = False
                # After the commit nothing more need be said: the last pull ends well, or fails and recomputes.
                return [] if self.commit is not None else self._give_up(reason)
            case Cancelled():
                return self._drop("cancelled")
            case Tick():
                return self._mind_silence(now_s)
            case events.Ended():
                return self._vanish()
        return []

    def _on_transfer(
        self, event: Pulled | PullFailed | Settled, now_s: float
    ) -> list[ArrivalCommand]:
        flight = self.flight
        assert flight is not None, f"{event} without a pull: {self}"
        assert flight.id == event.job, f"{event} is not of {flight}"
        if isinstance(event, PullFailed) and event.in_flight:
            return self._give_up(event.reason) if self.phase is Phase.PULLING else []
        self.flight = None
        if self.phase is Phase.SETTLING:
            self._move_to(Phase.OVER)
            return [events.Unquarantine(flight.local_blocks)]
        assert self.phase is Phase.PULLING, f"{event}: {self}"
        assert not isinstance(event, Settled), f"{event} of a pull that had not failed: {self}"
        if isinstance(event, PullFailed):
            if flight.codec is Codec.NONE:
                return self._give_up(event.reason)
            self.intake.make_plain(flight)
            return self._proceed(now_s)
        self.intake.admit(flight)
        self.pulled_bytes += event.bytes
        self.pull_s += event.seconds
        arrived = events.Arrived(self.request, self.epoch, self.intake.here_tokens)
        if flight.codec is Codec.NONE:
            return [arrived, *self._proceed(now_s)]
        self.pulled_codec = flight.codec
        took = wire.Took(self.request, self.source_epoch, self.intake.here_blocks)
        return [arrived, *([took] if self.linked else []), *self._proceed(now_s)]

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _ask(self, now_s: float) -> list[ArrivalCommand]:
        self._move_to(Phase.PULLING)
        self.heard_s = now_s
        held, known = self.intake.held_blocks, len(self.output)
        request, epoch, codec = self.request, self.source_epoch, self.intake.codec
        return [wire.Pull(request, epoch, held, known, self.live, codec, self.epoch)]

    def _extended(self, event: events.Extended, now_s: float) -> list[ArrivalCommand]:
        self.intake.extend(event.blocks)
        return self._proceed(now_s) if event.blocks else self._give_up("no room for its output")

    def _offered(self, ready: wire.Ready, now_s: float) -> list[ArrivalCommand]:
        wrong = self.intake.offer(ready)
        return self._give_up(wrong) if wrong else self._proceed(now_s)

    def _proceed(self, now_s: float) -> list[ArrivalCommand]:
        """Pull what is offered and not here, all of it at once; when nothing is missing any more, commit."""
        if self.flight is not None:
            return []
        commands: list[ArrivalCommand] = []
        if self.live and not self.freezing and self._is_near:
            self.freezing = True
            commands.append(wire.Freeze(self.request, self.source_epoch))
        if tokens := self.intake.room(0 if self.commit else ROOM_BLOCKS):
            commands.append(events.Extend(self.request, self.epoch, tokens))
        self.flight = self.intake.next_job(self.request, self.epoch, self.peer)
        if self.flight is not None:
            return [*commands, self.flight]
        return [*commands, *(self._own(self.commit, now_s) if self.commit is not None else [])]

    @property
    def _is_near(self) -> bool:
        """Whether what is left can be pulled while nobody steps the request."""
        intake = self.intake
        missing = max(intake.wanted_blocks, intake.published_blocks - intake.here_blocks)
        if missing <= TAIL_BLOCKS_MAX:
            return True
        begins_round = intake.here_blocks >= intake.round_blocks
        return intake.rounds + begins_round >= ROUNDS_MAX

    def _own(self, commit: wire.Commit, now_s: float) -> list[ArrivalCommand]:
        output, here = tuple(commit.output), self.intake.here_tokens
        if output[: len(self.output)] != self.output or not (output or self.live):
            return self._give_up("the source continues from other tokens")
        if here < commit.tokens:
            if self.live and self.intake.extending:
                return []  # the blocks for the rest are on their way
            return self._give_up("the source committed before it had published everything")
        owned = events.Commit(
            self.request,
            self.epoch,
            output,
            here,
            pulled_tokens=here - self.intake.held_tokens,
            pulled_bytes=self.pulled_bytes,
            pull_s=self.pull_s,
            pull_exposed_s=now_s - self.commit_s,
            pulled_codec=self.pulled_codec,
            logprobs=None if commit.logprobs is None else tuple(commit.logprobs),
        )
        return self._decide(Outcome.COMMITTED, "", owned, committed=True)

    # ---- endings -----------------------------------------------------------------------------------------------------

    def _give_up(self, reason: str) -> list[ArrivalCommand]:
        """Nothing more can be pulled. A hand-off is ours then, so its source is told the same as after a commit."""
        if self.live:
            decline = events.Decline(self.request, self.epoch, reason, self._endangered)
            return self._decide(Outcome.DECLINED, reason, decline, committed=False)
        recompute = events.Recompute(self.request, self.epoch, self._endangered)
        return self._decide(Outcome.RECOMPUTED, reason, recompute, committed=True)

    def _drop(self, reason: str) -> list[ArrivalCommand]:
        command = events.Drop(self.request, self.epoch, self._endangered)
        return self._decide(Outcome.DROPPED, reason, command, committed=False)

    def _vanish(self) -> list[ArrivalCommand]:
        """The engine has refused or failed the request and told the front door so itself."""
        assert self.flight is None, f"the engine let go of blocks that are being written: {self}"
        return self._decide(Outcome.DROPPED, "the engine gave it up", None, committed=False)

    def _decide(
        self, outcome: Outcome, reason: str, command: ToEngine | None, *, committed: bool
    ) -> list[ArrivalCommand]:
        commands: list[ArrivalCommand] = [] if command is None else [command]
        if self.phase is Phase.PULLING and self.linked:
            commands.append(wire.Release(self.request, self.source_epoch, committed))
        self.outcome, self.reason = outcome, reason
        self._move_to(Phase.SETTLING if self.flight is not None else Phase.OVER)
        return commands

    def _mind_silence(self, now_s: float) -> list[ArrivalCommand]:
        silent_s = now_s - self.heard_s
        if self.flight is None and silent_s > self.silence_s_max:
            return self._give_up(f"the source said nothing for {silent_s:.1f} s")
        return []

    @property
    def _endangered(self) -> tuple[BlockId, ...]:
        return self.flight.local_blocks if self.flight is not None else ()

    def validate(self) -> None:
        """Raises AssertionError when the parts contradict each other."""
        decided = self.phase in (Phase.SETTLING, Phase.OVER)
        assert decided == (self.outcome is not None), self
        assert (self.flight is None) or self.phase in (Phase.PULLING, Phase.SETTLING), self
        assert self.phase is not Phase.SETTLING or self.flight is not None, self
        intake = self.intake
        assert intake.held_blocks <= intake.here_blocks <= len(intake.blocks), self
        if self.outcome is Outcome.COMMITTED:
            assert self.commit is not None, self
            assert intake.here_tokens >= self.commit.tokens, self
        assert self.live or not self.freezing, self

    def _move_to(self, phase: Phase) -> None:
        assert phase in ARRIVAL_MOVES[self.phase], f"{self.phase} -> {phase}: {self!r}"
        self.phase = phase
