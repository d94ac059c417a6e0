"""The engine: requests go in as commands, tokens and readiness of KV come out as events, one batch a step.

Synchronous, with one owner thread. Knows no sockets and no transfers: who asked, who pulls and over what is the business
of whoever hands it commands.
"""

import logging

from tercet.clock import Clock
from tercet.config import EngineConfig
from tercet.workers.batch import Batch, Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event
from tercet.workers.forward import Forward
from tercet.workers.limits import Limits
from tercet.workers.outbox import Outbox
from tercet.workers.pace import Pace
from tercet.workers.residents import Residents
from tercet.workers.runner import Runner
from tercet.workers.sampler import Drawn
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence

_log = logging.getLogger(__name__)


class Engine:
    """`handle` changes what is to be done, `step` does one batch of it; both must be called by the same thread."""

    def __init__(self, runner: Runner, config: EngineConfig, clock: Clock) -> None:
        self.runner = runner
        blocks, block_tokens = runner.kv.blocks, runner.kv.geometry.block_tokens
        assert block_tokens == config.block_tokens, f"{block_tokens=} {config.block_tokens=}"
        self._limits = Limits(
            vocab_size=runner.vocab_size,
            context_tokens_max=runner.context_tokens_max,
            eos_token_ids=runner.eos_token_ids,
            block_tokens=block_tokens,
            blocks=blocks,
        )
        retained_max = int(config.retention_share_max * blocks)
        self._pool = BlockPool(blocks, runner.kv.generations, retained_max)
        self._scheduler = Scheduler(config, self._pool)
        self._pace = Pace()
        self._forward, self._clock = Forward(runner, self._pace, clock), clock
        self._outbox = Outbox(self._pool)
        self._residents = Residents(
            self._limits,
            self._scheduler,
            self._outbox,
            self._pace,
            start_within_s=config.start_within_s,
        )
        self._announced: Batch | None = None  # planned and told of, but not computed yet
        self._stalled = False  # nothing can run before another command comes

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to say now. Only a command makes it true again, never time alone."""
        runnable = self._scheduler.running or self._scheduler.waiting
        return bool(self._outbox or self._announced or (runnable and not self._stalled))

    def handle(self, command: Command) -> None:
        """Take a command. One for a request that is not here (any more) has no effect."""
        self._stalled = False
        self._pool.expire(self._clock.now_s())
        self._residents.handle(command)

    def step(self) -> list[Event]:
        """At most one batch; returns everything that happened since the last call.

        When hand-offs begin, that is said by a call of its own before their first chunk is computed, so that a
        destination can be bound while it is.
        """
        batch, self._announced = self._announced, None
        self._pool.expire(self._clock.now_s())
        if batch is None:
            batch = self._scheduler.schedule()
            self._stalled = not (batch.chunks or batch.stuck)
            for sequence in batch.stuck:
                reason = f"{len(sequence.tokens)} tokens need more KV blocks than there are"
                self._residents.fail(sequence, reason, retryable=False)
            if self._announce(batch):
                self._announced = batch
                return self._outbox.take()
        # Commands may have ended sequences since the batch was planned.
        chunks = [c for c in batch.chunks if c.sequence.phase is Phase.RUNNING]
        if chunks:
            self._compute(chunks)
        return self._outbox.take()

    def load(self) -> EngineLoad:
        """The figures of this moment."""
        scheduler = self._scheduler
        return EngineLoad(
            waiting=len(scheduler.waiting),
            running=len(scheduler.running),
            holding=len(scheduler.held),
            pulling=len(scheduler.reserved),
            pending_prefill_tokens=scheduler.pending_prefill_tokens(),
            context_tokens=sum(len(sequence.tokens) for sequence in scheduler.running),
            blocks_total=self._pool.blocks,
            blocks_used=self._pool.used,
            quarantined_blocks=self._pool.quarantined,
            retained_blocks=self._pool.retained,
            prefill_coefficients=self._pace.prefill_coefficients,
            decode_coefficients=self._pace.decode_coefficients,
        )

    def check_integrity(self) -> None:
        """Asserts that every block and every sequence is where it should be."""
        self._residents.check_integrity()

    def _announce(self, batch: Batch) -> bool:
        """Say which hand-offs begin, with what the prefix cache already has of them; False if none does."""
        begun = [sequence for sequence in batch.begun if sequence.hand_off]
        for sequence in begun:
            self._outbox.started(sequence)
            self._publish_full_blocks(sequence)
        return bool(begun)

    def _compute(self, chunks: list[Chunk]) -> None:
        try:
            results = self._forward.run(chunks)
        except Exception as error:
            # The model's, the device's or a kernel's failure: these requests end, the engine lives on.
            _log.exception("a batch of %d requests failed", len(chunks))
            for chunk in chunks:
                self._residents.fail(chunk.sequence, f"the model failed: {error!r}", retryable=True)
            return
        for chunk, drawn in zip(chunks, results, strict=True):
            if drawn is not None and drawn.token is None:
                self._residents.fail(
                    chunk.sequence, "the model's logits are not finite", retryable=True
                )
                continue
            self._advance(chunk)
            if drawn is not None:
                self._accept(chunk.sequence, drawn)

    def _advance(self, chunk: Chunk) -> None:
        sequence, end = chunk.sequence, chunk.sequence.computed + chunk.tokens
        of_prompt = min(end, sequence.prompt_tokens) - sequence.computed
        if of_prompt > 0:
            sequence.computed_tokens += of_prompt
        self._scheduler.advance(sequence, end)
        if sequence.hand_off:
            self._publish_full_blocks(sequence)

    def _accept(self, sequence: Sequence, drawn: Drawn) -> None:
        """One more token of output, and what follows from it."""
        assert drawn.token is not None, "a token was drawn"
        sequence.tokens.append(drawn.token)
        finish = self._limits.finish_of(sequence.spec, sequence.tokens)
        logprobs = [drawn.logprobs] if drawn.logprobs else None
        self._outbox.tokens(sequence, logprobs, finish)
        if finish:
            self._residents.end(sequence)
        elif sequence.hand_off:
            self._outbox.published(sequence, len(sequence.blocks), sequence.computed)
            self._scheduler.hold(sequence)
            self._outbox.held(sequence, logprobs)

    def _publish_full_blocks(self, sequence: Sequence) -> None:
        full = sequence.registered_blocks
        self._outbox.published(sequence, full, full * self._limits.block_tokens)
