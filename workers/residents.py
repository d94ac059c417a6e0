"""The requests that live in an engine: how they come, change hands and go.

Every request that enters by `Run` or `Reserve` leaves by exactly one `Ended`. The epoch in a command decides whether it is
meant for the life of the request that is here, or for an earlier or later one. Computes nothing.
"""

from collections.abc import Callable, Collection

from tercet.ids import BlockHash, BlockId, Epoch, RequestId
from tercet.request import RequestSpec
from tercet.wire import Usage
from tercet.workers.events import (
    Arrived,
    Command,
    Commit,
    Decline,
    Drop,
    DropOwner,
    Expose,
    Extend,
    Freeze,
    Recompute,
    Release,
    Relieve,
    Reserve,
    Run,
    Thaw,
    Unquarantine,
)
from tercet.workers.limits import Limits
from tercet.workers.outbox import Outbox
from tercet.workers.pace import Pace
from tercet.workers.relief import given_away
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence

KnownHashes = Callable[[RequestSpec], list[BlockHash]]
"""The hashes of a request's first blocks, as many as are known without computing them; a trace has them without tokens."""


RUNS = (Phase.WAITING, Phase.RUNNING)
"""Those that take part in steps, now or later."""


def none_known(spec: RequestSpec) -> list[BlockHash]:
    return []


class Residents:
    """Turns commands into changes of sequences; whoever computes tells it which of them `end` or `fail`."""

    def __init__(
        self,
        limits: Limits,
        scheduler: Scheduler,
        outbox: Outbox,
        pace: Pace,
        *,
        start_within_s: float,
        known_hashes: KnownHashes = none_known,
    ) -> None:
        self._limits, self._scheduler = limits, scheduler
        self._known_hashes = known_hashes
        self._start_within_s = start_within_s
        self._outbox, self._pace = outbox, pace
        self._sequences: dict[RequestId, Sequence] = {}
        self._arrivals = 0

    def handle(self, command: Command) -> None:
        """Take a command. One for a request that is not here (any more) has no effect."""
        match command:
            case Run():
                self._run(command)
            case Reserve():
                self._reserve(command)
            case Arrived():
                if sequence := self._pulling(command.request, command.epoch):
                    self._arrive(sequence, command.tokens)
            case Extend():
                if sequence := self._pulling(command.request, command.epoch):
                    self._outbox.extended(
                        sequence, self._scheduler.extend(sequence, command.tokens)
                    )
            case Commit():
                if sequence := self._pulling(command.request, command.epoch):
                    self._commit(sequence, command)
            case Recompute():
                if sequence := self._pulling(command.request, command.epoch):
                    sequence.recomputed = True
                    self._scheduler.requeue(sequence, command.quarantine)
            case Decline():
                if sequence := self._pulling(command.request, command.epoch):
                    self._outbox.refused(sequence, command.reason, 0.0, self._pending)
                    self.end(sequence, command.quarantine)
            case Drop():
                self._drop(command)
            case Expose():
                self._expose(command)
            case Freeze():
                if sequence := self._exposed(command.request, command.epoch):
                    self.hold(sequence)
            case Thaw():
                self._thaw(command)
            case Release():
                self._release(command)
            case Relieve(tokens, to):
                for sequence in given_away(self._scheduler.running, tokens):
                    self._outbox.wants_move(sequence, to)
            case DropOwner():
                self._drop_owner(command.owner)
            case Unquarantine():
                self._scheduler.pool.unquarantine(command.blocks)

    def meant_by(self, command: Command) -> Collection[Sequence]:
        """Whom a command may end, stop or look at closely."""
        match command:
            case Unquarantine():
                return ()
            case Relieve() | DropOwner():
                return self._sequences.values()
            case Run() | Reserve():
                found = self._sequences.get(command.spec.id)
            case _:
                found = self._sequences.get(command.request)
        return (found,) if found else ()

    def end(self, sequence: Sequence, quarantine: tuple[BlockId, ...] = ()) -> None:
        """Nothing is kept of a sequence, except what the prefix cache has."""
        self._scheduler.remove(sequence, quarantine)
        del self._sequences[sequence.id]
        self._outbox.ended(sequence)

    def publish(self, sequence: Sequence) -> None:
        """Its full blocks, as far as they have not been published."""
        full = sequence.registered_blocks
        self._outbox.published(sequence, full, full * self._limits.block_tokens)

    def hold(self, sequence: Sequence) -> None:
        """It stops here, and everything it has may be pulled."""
        self._outbox.published(
            sequence, self._limits.blocks_for(sequence.computed), sequence.computed
        )
        self._scheduler.hold(sequence)
        self._outbox.held(sequence)

    def fail(self, sequence: Sequence, reason: str, *, retryable: bool) -> None:
        """End a sequence that cannot go on."""
        self._outbox.failed(sequence, reason, retryable=retryable)
        self.end(sequence)

    def check_integrity(self) -> None:
        """Asserts that every sequence is in exactly one queue, and every block where it should be."""
        scheduler = self._scheduler
        scheduler.check_integrity()
        queued = {*scheduler.waiting, *scheduler.running, *scheduler.reserved, *scheduler.held}
        assert queued == set(self._sequences.values()), "a sequence is lost or forgotten"

    def _run(self, command: Run) -> None:
        if sequence := self._enter(command, hand_off=command.hand_off):
            self._keep(sequence, self._too_late() or self._scheduler.enqueue(sequence))

    @property
    def _pending(self) -> int:
        return self._scheduler.pending_prefill_tokens()

    def _too_late(self) -> str | None:
        """Why a request could not start soon here; whoever holds it can do more with it than this queue could."""
        wait_s = self._pace.wait_s(self._pending)
        if wait_s <= self._start_within_s:
            return None
        return f"{wait_s:.2f} s of prefill are ahead, more than {self._start_within_s:g} s"

    def _reserve(self, command: Reserve) -> None:
        sequence = self._enter(command, hand_off=False)
        if sequence is None:
            return
        refusal = self._scheduler.reserve(sequence, more_to_come=not command.live)
        if self._keep(sequence, refusal):
            self._outbox.reserved(sequence)

    def _enter(self, command: Run | Reserve, *, hand_off: bool) -> Sequence | None:
        """The sequence of a request that could run here, or None after having said why it never will."""
        sequence = Sequence(
            spec=command.spec,
            epoch=command.epoch,
            owner=command.owner,
            arrival=self._arrivals,
            tokens=command.spec.prompt + list(command.output),
            hand_off=hand_off,
            known_output=len(command.output),
            hashes=self._known_hashes(command.spec),
        )
        self._arrivals += 1
        if not self._make_way(sequence):
            return None
        if finish := self._limits.finish_of(sequence.spec, sequence.tokens):
            self._outbox.tokens(sequence, None, finish)
            self._outbox.ended(sequence)
            return None
        objection = self._limits.objection(sequence.spec, sequence.tokens, hand_off=hand_off)
        if objection:
            self._outbox.failed(sequence, objection, retryable=False)
            self._outbox.ended(sequence)
            return None
        return sequence

    def _make_way(self, sequence: Sequence) -> bool:
        """A later life of a request ends the earlier one; one that comes late is itself not taken."""
        other = self._sequences.get(sequence.id)
        if other is None:
            return True
        if other.epoch == sequence.epoch:
            return False  # the same command again
        if other.epoch > sequence.epoch:
            self._outbox.ended(sequence)
            return False
        if other.phase is Phase.RESERVED:
            # Only its `Drop` can say which blocks a transfer may still write into.
            self._keep(sequence, "an earlier life of this request is still pulling KV here")
            return False
        self.end(other)
        return True

    def _keep(self, sequence: Sequence, refusal: str | None) -> bool:
        """Remember a sequence that the scheduler took, or say why it did not."""
        if refusal is None:
            self._sequences[sequence.id] = sequence
            return True
        pending = self._pending
        self._outbox.refused(sequence, refusal, self._pace.retry_after_s(pending), pending)
        self._outbox.ended(sequence)
        return False

    def _pulling(self, request: RequestId, epoch: Epoch) -> Sequence | None:
        """The sequence that waits for KV under this epoch, if there is one."""
        found = self._sequences.get(request)
        here = found and found.epoch == epoch and found.phase is Phase.RESERVED
        return found if here else None

    def _arrive(self, sequence: Sequence, tokens: int) -> None:
        """KV is here; of tokens beyond those that are known here its commit will tell."""
        known = min(tokens, len(sequence.tokens))
        self._scheduler.advance(sequence, max(known, sequence.computed))

    def _commit(self, sequence: Sequence, command: Commit) -> None:
        """The request is ours: what was drawn elsewhere is repeated, in case it gets there first."""
        fresh = command.output[sequence.output_tokens :]
        sequence.tokens.extend(fresh)
        sequence.logprobs.extend(command.logprobs or ())
        sequence.pulled = Usage(
            pulled_tokens=command.pulled_tokens,
            pulled_bytes=command.pulled_bytes,
            pulled_codec=command.pulled_codec,
            pull_s=command.pull_s,
            pull_exposed_s=command.pull_exposed_s,
        )
        self._arrive(sequence, command.tokens)
        self._scheduler.start(sequence)
        assert sequence.remaining, f"{sequence.id} has the KV of its last token"
        finish = self._limits.finish_of(sequence.spec, sequence.tokens)
        if fresh:
            logprobs = list(command.logprobs) if command.logprobs else None
            self._outbox.tokens(sequence, logprobs, finish)
        if finish:
            self.end(sequence)

    def _expose(self, command: Expose) -> None:
        """What runs, or waits to, may be pulled from now on."""
        found = self._sequences.get(command.request)
        if found is None or found.epoch != command.epoch or found.phase not in RUNS:
            self._outbox.absent(command.request, command.epoch, command.exposure)
            return
        found.exposure, found.published_blocks = command.exposure, 0
        self._outbox.exposed(found)
        self.publish(found)

    def _exposed(self, request: RequestId, epoch: Epoch) -> Sequence | None:
        found = self._sequences.get(request)
        here = found and found.epoch == epoch and found.exposure and found.phase in RUNS
        return found if here else None

    def _thaw(self, command: Thaw) -> None:
        """It was ours all the time, and goes on as if nothing had been."""
        found = self._sequences.get(command.request)
        if found is None or found.epoch != command.epoch or found.phase is Phase.RESERVED:
            if command.owner:
                self._outbox.missing(command)
            return
        found.exposure = 0
        if found.phase is Phase.HELD:
            self._scheduler.thaw(found)

    def _drop(self, command: Drop) -> None:
        found = self._sequences.get(command.request)
        if found and found.epoch <= command.epoch:
            self.end(found, command.quarantine)

    def _release(self, command: Release) -> None:
        """A destination that gave up recomputes by itself: its source has nothing left to do either."""
        found = self._sequences.get(command.request)
        if found and found.epoch == command.epoch and (found.hand_off or found.phase is Phase.HELD):
            self.end(found)

    def _drop_owner(self, owner: str) -> None:
        """All of its requests but those that another part of the worker has in hand: it drops them itself."""
        for sequence in list(self._sequences.values()):
            live = sequence.phase is Phase.HELD and not sequence.hand_off
            if sequence.owner == owner and (live or sequence.phase in RUNS):
                self.end(sequence)
