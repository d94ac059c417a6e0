"""The engine: requests go in as commands, tokens and readiness of KV come out as events, one batch a step.

Where a device draws tokens itself, a step is planned and launched while the one before is under way. One owner thread. Knows no
sockets and no transfers: who asked, who pulls and over what is the business of whoever hands it commands.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

from tercet.clock import Clock
from tercet.config import EngineConfig
from tercet.workers.batch import Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event
from tercet.workers.forward import Forward, Pending
from tercet.workers.host_tier.copying import Copying, OpenCopier, open_copier
from tercet.workers.host_tier.host_tier import HostTier
from tercet.workers.limits import Limits
from tercet.workers.pace import Pace
from tercet.workers.runner import BetweenLayers, Runner, RunnerLost, go_on
from tercet.workers.scheduler import Scheduler
from tercet.workers.steps import Steps

_log = logging.getLogger(__name__)


class Outside(Protocol):
    """The rest of the worker, as far as it is reached amid a step."""

    def commands(self) -> Sequence[Command]:
        """What has come since; asked once in each layer of a long step."""
        ...

    def say(self, events: list[Event]) -> None:
        """These need not wait for the end of the step."""
        ...


class Nobody:
    """Nothing comes amid a step."""

    def commands(self) -> Sequence[Command]:
        return ()

    def say(self, events: list[Event]) -> None:
        raise AssertionError(f"said to nobody: {events}")


NOBODY = Nobody()


class Flight(NamedTuple):
    """A batch under way."""

    chunks: list[Chunk]
    pending: Pending


class Engine:
    """`handle` changes what is to be done, `step` does one batch of it; both must be called by the same thread."""

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        clock: Clock,
        open_copier: OpenCopier = open_copier,
    ) -> None:
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
        tier, copier = None, None
        if config.host_kv_blocks:
            tier = HostTier(self._pool, config.host_kv_blocks, block_tokens, runner.kv.block_bytes)
            copier = open_copier(runner.kv, config.host_kv_blocks)
        scheduler = Scheduler(config, self._pool, tier)
        self._copying = Copying(scheduler.tier, copier)
        self._steps = Steps(limits, scheduler, pace, start_within_s=config.start_within_s)
        self._flight: Flight | None = None

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do or to say now. Only a command makes it true again, never time alone."""
        return self._flight is not None or self._copying.under_way or self._steps.has_work

    def handle(self, command: Command) -> None:
        """Take a command. One for a request that is not here (any more) has no effect.

        Waits for the batch under way if it is for somebody who takes part in that.
        """
        self._pool.expire(self._clock.now_s())
        if self._flight is not None and self._steps.concerns(command):
            self._land()
        self._steps.handle(command)

    def step(self, outside: Outside = NOBODY) -> list[Event]:
        """Launches at most one batch and waits for at most one; returns what happened and was not said.

        Amid a batch that is computed at once comes what is urgent from `outside`.
        """
        self._pool.expire(self._clock.now_s())
        self._copying.land()
        chunks = self._steps.plan()
        self._copying.begin()
        self._compute_or_wait(chunks, outside)
        self._copying.begin()
        return self._steps.take()

    def _compute_or_wait(self, chunks: list[Chunk], outside: Outside) -> None:
        if self._flight is not None:
            if not chunks and self._steps.has_news:
                return
            if self._forward.needs_log(chunks):
                self._land()
                chunks = self._steps.runnable(chunks)
        if chunks:
            between_layers = (
                partial(self._interject, outside) if self._steps.interruptible else go_on
            )
            self._compute(chunks, between_layers)
        elif self._flight is not None:
            self._land()
        elif not self._steps.has_news:
            self._copying.wait()

    def _interject(self, outside: Outside) -> None:
        """The step under way stands between two layers: whoever has come and may come first is computed, and answered."""
        commands = outside.commands()
        if not commands:
            return
        for command in commands:
            self.handle(command)
        while self._steps.interruptible and (chunks := self._steps.interject()):
            self._say(outside)
            self._compute(chunks)
        self._say(outside)

    def load(self) -> EngineLoad:
        """The figures of this moment."""
        return self._steps.load()

    def check_integrity(self) -> None:
        """Asserts that every block and every sequence is where it should be."""
        self._steps.check_integrity()

    def _say(self, outside: Outside) -> None:
        if events := self._steps.take():
            outside.say(events)

    def _compute(self, chunks: list[Chunk], between_layers: BetweenLayers = go_on) -> None:
        """Launch a batch, and finish the one before it; itself too if it is over already."""
        try:
            pending = self._forward.launch(chunks, between_layers)
        except RunnerLost:
            raise
        except Exception as error:
            self._land()
            self._fail(self._steps.runnable(chunks), error)
            return
        if pending.over:
            self._finish(Flight(chunks, pending))
        else:
            self._steps.depart(chunks)
            self._land()
            self._flight = Flight(chunks, pending)

    def _land(self) -> None:
        """Wait for the batch under way, if there is one."""
        flight, self._flight = self._flight, None
        if flight is not None:
            self._finish(flight)

    def _finish(self, flight: Flight) -> None:
        try:
            results = flight.pending.result()
        except RunnerLost:
            raise
        except Exception as error:
            self._fail(flight.chunks, error)
        else:
            self._steps.finish(flight.chunks, results)

    def _fail(self, chunks: list[Chunk], error: Exception) -> None:
        """The model's, the device's or a kernel's failure: these requests end, the engine lives on."""
        _log.error("a batch of %d requests failed", len(chunks), exc_info=error)
        self._steps.fail(chunks, f"the model failed: {error!r}")
