"""One hand-off from the destination's side. A pure state machine: `HandOff.handle` takes an event and returns commands."""

from dataclasses import dataclass

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers import events
from tercet.workers.hand_off.intake import Intake
from tercet.workers.hand_off.signals import (
    Cancelled,
    Command,
    Event,
    Linked,
    LinkLost,
    Outcome,
    Phase,
    Tick,
    ToEngine,
)
from tercet.workers.transfer.base import Pulled, PullFailed, PullJob, Settled


@dataclass(slots=True)
class HandOff:
    """One request on its way here. `epoch` is ours; the source owns it under `epoch - 1`."""

    request: RequestId
    epoch: Epoch
    peer: str
    """The source's agent."""
    prompt_tokens: int
    output: tuple[int, ...]
    """Output tokens that were known when the hand-off began."""
    intake: Intake
    silence_s_max: float
    """A source that is linked but says nothing for this long is given up: its engine may hang."""
    heard_s: float
    """When the source last said something; at first, when the hand-off began."""
    phase: Phase = Phase.RESERVING
    outcome: Outcome | None = None
    reason: str = ""
    """Why it was recomputed or dropped."""
    linked: bool = False
    lost: str = ""
    """Why there will be no link, when that was known before the engine had answered."""
    flight: PullJob | None = None
    commit: wire.Commit | None = None
    commit_s: float = 0.0
    pulled_bytes: int = 0
    pull_s: float = 0.0

    @property
    def source_epoch(self) -> Epoch:
        return Epoch(self.epoch - 1)

    @property
    def leased(self) -> bool:
        """Whether the source keeps KV for us: the lease must be renewed."""
        return self.phase is Phase.PULLING and self.linked

    def handle(self, event: Event, now_s: float) -> list[Command]:
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

    def _while_reserving(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case events.Reserved():
                self.intake.reserve(event.blocks, event.held_blocks)
                self.phase = Phase.LINKING
                if self.lost:
                    return self._recompute(self.lost)
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

    def _while_linking(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case Linked():
                self.linked = True
                return self._ask(now_s)
            case LinkLost(reason):
                return self._recompute(reason)
            case Cancelled():
                return self._drop("cancelled")
            case Tick():
                return self._mind_silence(now_s)
            case events.Ended():
                return self._vanish()
        return []

    def _while_pulling(self, event: Event, now_s: float) -> list[Command]:
        match event:
            case wire.Ready():
                self.heard_s = now_s
                return self._offered(event, now_s)
            case wire.Commit():
                self.heard_s = self.commit_s = now_s
                self.commit = event
                return self._proceed(now_s)
            case wire.Gone(reason=wire.GoneReason.FINISHED):
                # The front door knows and cancels. But it may have lost the source's last word, and then waits for ours.
                self.linked, self.heard_s = False, now_s
                return []
            case wire.Gone():
                self.linked = False
                return self._recompute("the source does not have it")
            case LinkLost(reason):
                self.linked = False
                # After the commit nothing more need be said: the last pull ends well, or fails and recomputes.
                return [] if self.commit is not None else self._recompute(reason)
            case Cancelled():
                return self._drop("cancelled")
            case Tick():
                return self._mind_silence(now_s)
            case events.Ended():
                return self._vanish()
        return []

    def _on_transfer(self, event: Pulled | PullFailed | Settled, now_s: float) -> list[Command]:
        flight = self.flight
        assert flight is not None, f"{event} without a pull: {self}"
        assert flight.id == event.job, f"{event} is not of {flight}"
        if isinstance(event, PullFailed) and event.in_flight:
            return self._recompute(event.reason) if self.phase is Phase.PULLING else []
        self.flight = None
        if self.phase is Phase.SETTLING:
            self.phase = Phase.OVER
            return [events.Unquarantine(flight.local_blocks)]
        assert self.phase is Phase.PULLING, f"{event}: {self}"
        assert not isinstance(event, Settled), f"{event} of a pull that had not failed: {self}"
        if isinstance(event, PullFailed):
            return self._recompute(event.reason)
        self.intake.admit(flight)
        self.pulled_bytes += event.bytes
        self.pull_s += event.seconds
        arrived = events.Arrived(self.request, self.epoch, self.intake.here_tokens)
        return [arrived, *self._proceed(now_s)]

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _ask(self, now_s: float) -> list[Command]:
        self.phase, self.heard_s = Phase.PULLING, now_s
        return [wire.Pull(self.request, self.source_epoch, self.intake.held_blocks)]

    def _offered(self, ready: wire.Ready, now_s: float) -> list[Command]:
        wrong = self.intake.offer(ready)
        return self._recompute(wrong) if wrong else self._proceed(now_s)

    def _proceed(self, now_s: float) -> list[Command]:
        """Pull what is offered and not here, all of it at once; when nothing is missing any more, commit."""
        if self.flight is not None:
            return []
        self.flight = self.intake.next_job(self.request, self.epoch, self.peer)
        if self.flight is not None:
            return [self.flight]
        return self._own(self.commit, now_s) if self.commit is not None else []

    def _own(self, commit: wire.Commit, now_s: float) -> list[Command]:
        output = tuple(commit.output)
        if output[: len(self.output)] != self.output or not output:
            return self._recompute("the source continues from other tokens")
        if self.intake.here_tokens < self.prompt_tokens + len(output) - 1:
            return self._recompute("the source committed before it had published everything")
        owned = events.Commit(
            self.request,
            self.epoch,
            output,
            pulled_tokens=self.intake.here_tokens - self.intake.held_tokens,
            pulled_bytes=self.pulled_bytes,
            pull_s=self.pull_s,
            pull_exposed_s=now_s - self.commit_s,
            logprobs=None if commit.logprobs is None else tuple(commit.logprobs),
        )
        return self._decide(Outcome.COMMITTED, "", owned, committed=True)

    # ---- endings -----------------------------------------------------------------------------------------------------

    def _recompute(self, reason: str) -> list[Command]:
        # The request is ours from here on, so the source is told the same as after a commit.
        command = events.Recompute(self.request, self.epoch, self._endangered)
        return self._decide(Outcome.RECOMPUTED, reason, command, committed=True)

    def _drop(self, reason: str) -> list[Command]:
        command = events.Drop(self.request, self.epoch, self._endangered)
        return self._decide(Outcome.DROPPED, reason, command, committed=False)

    def _vanish(self) -> list[Command]:
        """The engine has refused or failed the request and told the front door so itself."""
        assert self.flight is None, f"the engine let go of blocks that are being written: {self}"
        return self._decide(Outcome.DROPPED, "the engine gave it up", None, committed=False)

    def _decide(
        self, outcome: Outcome, reason: str, command: ToEngine | None, *, committed: bool
    ) -> list[Command]:
        commands: list[Command] = [] if command is None else [command]
        if self.phase is Phase.PULLING and self.linked:
            commands.append(wire.Release(self.request, self.source_epoch, committed))
        self.outcome, self.reason = outcome, reason
        self.phase = Phase.SETTLING if self.flight is not None else Phase.OVER
        return commands

    def _mind_silence(self, now_s: float) -> list[Command]:
        silent_s = now_s - self.heard_s
        if self.flight is None and silent_s > self.silence_s_max:
            return self._recompute(f"the source said nothing for {silent_s:.1f} s")
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
            assert intake.here_tokens >= self.prompt_tokens + len(self.commit.output) - 1, self
