"""The engine: requests go in as commands, tokens and readiness of KV come out as events, one batch a step.

Synchronous, with one owner thread. Knows no sockets and no transfers: who asked, who pulls and over what is the business
of whoever hands it commands.
"""

import logging

from tercet.clock import Clock
from tercet.config import EngineConfig
from tercet.workers.batch import Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event
from tercet.workers.forward import Forward
from tercet.workers.limits import Limits
from tercet.workers.pace import Pace
from tercet.workers.runner import Runner, RunnerLost
from tercet.workers.scheduler import Scheduler
from tercet.workers.steps import Steps

_log = logging.getLogger(__name__)


class Engine:
    """`handle` changes what is to be done, `step` does one batch of it; both must be called by the same thread."""

    def __init__(self, runner: Runner, config: EngineConfig, clock: Clock) -> None:
        self.runner = runner
        blocks, block_tokens = runner.kv.blocks, runner.kv.geometry.block_tokens
        assert block_tokens == config.block_tokens, f"{block_tokens=} {config.block_tokens=}"
        limits = Limits(
            vocab_size=runner.vocab_size,
            context_tokens_max=runner.context_tokens_max,
            eos_token_ids=runner.eos_token_ids,
            block_tokens=block_tokens,
            blocks=blocks,
        )
        pace = Pace()
        self._forward, self._clock = Forward(runner, pace, clock), clock
        retained_max = int(config.retention_share_max * blocks)
        self._pool = BlockPool(blocks, runner.kv.generations, retained_max)
        scheduler = Scheduler(config, self._pool)
        self._steps = Steps(limits, scheduler, pace, start_within_s=config.start_within_s)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to say now. Only a command makes it true again, never time alone."""
        return self._steps.has_work

    def handle(self, command: Command) -> None:
        """Take a command. One for a request that is not here (any more) has no effect."""
        self._pool.expire(self._clock.now_s())
        self._steps.handle(command)

    def step(self) -> list[Event]:
        """At most one batch; returns everything that happened since the last call."""
        self._pool.expire(self._clock.now_s())
        chunks = self._steps.plan()
        if chunks:
            self._compute(chunks)
        return self._steps.take()

    def load(self) -> EngineLoad:
        """The figures of this moment."""
        return self._steps.load()

    def check_integrity(self) -> None:
        """Asserts that every block and every sequence is where it should be."""
        self._steps.check_integrity()

    def _compute(self, chunks: list[Chunk]) -> None:
        try:
            results = self._forward.run(chunks)
        except RunnerLost:
            raise
        except Exception as error:
            # The model's, the device's or a kernel's failure: these requests end, the engine lives on.
            _log.exception("a batch of %d requests failed", len(chunks))
            self._steps.fail(chunks, f"the model failed: {error!r}")
        else:
            self._steps.finish(chunks, results)
