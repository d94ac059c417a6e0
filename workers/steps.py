"""An engine but for its model: what the next step computes, and what follows from what was drawn. Pure.

`engine` runs a model on it; a simulation, which knows only how long that takes, does the rest with the same code.
"""

from collections.abc import Iterable

from tercet.workers.batch import Batch, Chunk, Drawn
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event
from tercet.workers.interjection import StepUnderWay
from tercet.workers.limits import Limits
from tercet.workers.outbox import Outbox
from tercet.workers.pace import Pace
from tercet.workers.residents import KnownHashes, Residents, none_known
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence


class Steps:
    """`handle` changes what is to be done; `plan` a step, compute it, and `finish` it or `fail` its chunks.

    Amid a step others may be computed: `interject`, compute, and `finish` or `fail` those. Commands that come meanwhile take
    effect at once, up to the first one that concerns the step; that one and what follows it waits for the step's end.
    Whoever plans the next step before that has the chunks `depart` first; then there is no `interject`, and there are no commands
    for those who take part, see `concerns`. What has happened is kept until it is taken.
    """

    def __init__(
        self,
        limits: Limits,
        scheduler: Scheduler,
        pace: Pace,
        *,
        start_within_s: float,
        known_hashes: KnownHashes = none_known,
    ) -> None:
        self._limits, self._scheduler, self._pace = limits, scheduler, pace
        self._outbox = Outbox(scheduler.pool)
        self._residents = Residents(
            limits,
            scheduler,
            self._outbox,
            pace,
            start_within_s=start_within_s,
            known_hashes=known_hashes,
        )
        self._announced: Batch | None = None  # planned and told of, but not computed yet
        self._stalled = False  # nothing can run before another command comes
        self._under_way: StepUnderWay | None = None
        self._interjected = False
        self._put_off: list[Command] = []

    @property
    def has_work(self) -> bool:
        """Whether there is something to do or to say now. Only a command makes it true again, never time alone."""
        runnable = self._scheduler.running or self._scheduler.waiting
        return bool(self._outbox or self._announced or (runnable and not self._stalled))

    @property
    def has_news(self) -> bool:
        """Whether something has happened since the last `take`."""
        return bool(self._outbox)

    def concerns(self, command: Command) -> bool:
        """Whether a command is for somebody who takes part in a step under way."""
        return any(sequence.ahead for sequence in self._residents.meant_by(command))

    def handle(self, command: Command) -> None:
        """Take a command. One for a request that is not here (any more) has no effect."""
        self._stalled = False
        step = self._under_way
        if step and (self._put_off or step.concerned_by(command)):
            self._put_off.append(command)
        else:
            self._residents.handle(command)

    def plan(self) -> list[Chunk]:
        """What to compute next; empty when there is nothing, or when something is to be said before.

        A step takes long. When hand-offs begin, a destination can be bound meanwhile, and whoever asked for blocks, or
        was refused, has no reason to wait for it either.
        """
        batch, self._announced = self._announced, None
        if batch is None:
            batch = self._scheduler.schedule()
            self._stalled = not (batch.chunks or batch.stuck)
            for sequence in batch.stuck:
                reason = f"{len(sequence.tokens)} tokens need more KV blocks than there are"
                self._residents.fail(sequence, reason, retryable=False)
            self._announce(batch)
            if self._outbox and batch.chunks:
                self._announced = batch
                return []
        # Commands may have ended sequences since the batch was planned.
        chunks = self.runnable(batch.chunks)
        # Prefills stand behind decodes, and only new ones may be as short as those.
        if chunks and (batch.begun or chunks[-1].sequence.remaining > 1):
            self._under_way = StepUnderWay.of(chunks)
        return chunks

    def runnable(self, chunks: list[Chunk]) -> list[Chunk]:
        """Those planned chunks that can still be computed, after what has happened since."""
        return [chunk for chunk in chunks if chunk.sequence.phase is Phase.RUNNING]

    def depart(self, chunks: list[Chunk]) -> None:
        """They are being computed, and the next step may be planned as if that were done."""
        self._under_way = None
        for chunk in chunks:
            sequence = chunk.sequence
            if chunk.completes and not self._leaves(sequence):
                sequence.awaited += 1
            sequence.ahead += chunk.tokens

    @property
    def interruptible(self) -> bool:
        """Whether the step under way is so long that others may come first."""
        return self._under_way is not None and self._under_way.tokens_left > 0

    def interject(self) -> list[Chunk]:
        """What is to be computed before the step under way goes on."""
        assert self._under_way is not None, "no step is under way"
        assert not self._interjected, "one at a time"
        step = self._under_way
        batch = self._scheduler.interject(step.longest, step.tokens_left)
        step.tokens_left -= sum(chunk.tokens for chunk in batch.chunks)
        self._announce(batch)
        self._interjected = bool(batch.chunks)
        return batch.chunks

    def finish(self, chunks: list[Chunk], results: Iterable[Drawn | None]) -> None:
        """The chunks are computed; for each what was drawn after it, None where the sequence goes on with another one."""
        self._stalled = False
        for chunk, drawn in zip(chunks, results, strict=True):
            if chunk.sequence.ahead and not self._arrives(chunk, drawn is not None):
                continue
            if drawn is not None and drawn.token is None:
                self._give_up(chunk.sequence, "the model's logits are not finite")
                continue
            self._advance(chunk)
            if drawn is not None:
                self._accept(chunk.sequence, drawn)
        self._end_step()

    def fail(self, chunks: list[Chunk], reason: str) -> None:
        """The KV of these chunks is undefined: their requests end."""
        self._stalled = False
        for chunk in chunks:
            if not chunk.sequence.ahead or self._arrives(chunk, drawn=False):
                self._give_up(chunk.sequence, reason)
        self._end_step()

    def take(self) -> list[Event]:
        """Everything that happened since the last call."""
        return self._outbox.take()

    def load(self) -> EngineLoad:
        """The figures of this moment."""
        scheduler, pool = self._scheduler, self._scheduler.pool
        return EngineLoad(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            holding=len(scheduler.held),
            pulling=len(scheduler.reserved),
            pending_prefill_tokens=scheduler.pending_prefill_tokens(),
            context_tokens=scheduler.context_tokens(),
            blocks_total=pool.blocks,
            blocks_used=pool.used,
            quarantined_blocks=pool.quarantined,
            retained_blocks=pool.retained,
            prefill_coefficients=self._pace.prefill_coefficients,
            decode_coefficients=self._pace.decode_coefficients,
            head_tokens=scheduler.head_tokens(),
            urgent=sum([sequence.spec.priority > 0 for sequence in scheduler.running]),
            host=scheduler.tier.figures(),
        )

    def check_integrity(self) -> None:
        """Asserts that every block and every sequence is where it should be."""
        self._residents.check_integrity()

    def _end_step(self) -> None:
        """Of the interjection, if there is one, else of the step itself."""
        if self._interjected:
            self._interjected = False
            return
        self._under_way = None
        commands, self._put_off = self._put_off, []
        for command in commands:
            self._residents.handle(command)

    def _announce(self, batch: Batch) -> None:
        """Say which hand-offs begin, with what the prefix cache already has of them."""
        for sequence in batch.begun:
            if sequence.hand_off:
                self._outbox.started(sequence)
            if sequence.published:
                self._residents.publish(sequence)

    def _leaves(self, sequence: Sequence) -> bool:
        """Whether it takes no further part once the next token is drawn, whatever that is."""
        return sequence.hand_off or self._limits.full(sequence.spec, sequence.length + 1)

    def _arrives(self, chunk: Chunk, drawn: bool) -> bool:
        """A chunk that had departed is done; False if its sequence was over before."""
        sequence = chunk.sequence
        sequence.ahead -= chunk.tokens
        if drawn and sequence.awaited:
            sequence.awaited -= 1
        if sequence.over and not sequence.ahead:
            self._residents.end(sequence)
        return not sequence.over

    def _end(self, sequence: Sequence) -> None:
        """It has said its last. Where a step under way writes into its blocks, they are given away after that."""
        if sequence.ahead:
            sequence.over = True
        else:
            self._residents.end(sequence)

    def _give_up(self, sequence: Sequence, reason: str) -> None:
        self._outbox.failed(sequence, reason, retryable=True)
        self._end(sequence)

    def _advance(self, chunk: Chunk) -> None:
        sequence, end = chunk.sequence, chunk.sequence.computed + chunk.tokens
        of_prompt = min(end, sequence.prompt_tokens) - sequence.computed
        if of_prompt > 0:
            sequence.computed_tokens += of_prompt
        self._scheduler.advance(sequence, end)
        if sequence.published:
            self._residents.publish(sequence)

    def _accept(self, sequence: Sequence, drawn: Drawn) -> None:
        """One more token of output, and what follows from it."""
        assert drawn.token is not None, "a token was drawn"
        sequence.tokens.append(drawn.token)
        finish = self._limits.finish_of(sequence.spec, sequence.tokens)
        if drawn.logprobs:
            sequence.logprobs.append(drawn.logprobs)
        self._outbox.tokens(sequence, [drawn.logprobs] if drawn.logprobs else None, finish)
        if finish:
            self._end(sequence)
        elif sequence.hand_off:
            self._residents.hold(sequence)
