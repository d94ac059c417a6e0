"""The engine of a simulated worker: the production steps on a model that takes simulated time."""

from collections.abc import Callable

import numpy as np

from faults import kv
from faults.story import shown
from tercet.config import EngineConfig
from tercet.workers.batch import Chunk, Drawn
from tercet.workers.block_pool import BlockPool
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Command, Event
from tercet.workers.limits import Limits
from tercet.workers.pace import Pace
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Sequence
from tercet.workers.steps import Steps

CONTEXT_TOKENS_MAX = 200


class SimEngine:
    """Takes the place of `EngineThread` and `Engine`: commands wait for the middle or the end of the step under way."""

    def __init__(
        self, process: object, config: EngineConfig, deliver: Callable[[list[Event]], None]
    ) -> None:
        self._process, self._deliver = process, deliver
        self.memory = kv.memory(config.kv_blocks)
        self.generations = np.zeros(config.kv_blocks, dtype=np.uint64)
        self.pool = BlockPool(config.kv_blocks, self.generations)
        self.scheduler = Scheduler(config, self.pool)
        limits = Limits(
            kv.VOCABULARY, CONTEXT_TOKENS_MAX, kv.END_TOKENS, kv.BLOCK_TOKENS, config.kv_blocks
        )
        self.steps = Steps(limits, self.scheduler, Pace(), start_within_s=config.start_within_s)
        self.sequences: dict[str, Sequence] = self.steps._residents._sequences
        """All that live in this engine."""
        self.interjections = 0
        """How often somebody was computed amid somebody else's step."""
        self.inbox: list[Command] = []
        self._busy = False

    @property
    def load(self) -> EngineLoad:
        return self.steps.load()

    @property
    def unheard(self) -> list[Command]:
        """What it has not acted upon yet."""
        return self.inbox + self.steps._put_off

    def post(self, *commands: Command) -> None:
        if self._process.network.story.wanted:
            for command in commands:
                self._process.network.story.tell(
                    self._process, f"  engine is told {shown(command)}"
                )
        self.inbox += commands
        self._wake()

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._process.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Between two steps."""
        commands, self.inbox = self.inbox, []
        for command in commands:
            self.steps.handle(command)
        chunks = self.steps.plan() if self.steps.has_work else []
        self._process.world.invariants.changes += 1
        if chunks:
            half_s = self._process.network.chaos.step_s() / 2
            self._process.loop.call_later(half_s, self._interject, half_s, chunks)
        else:
            self._say()

    def _interject(self, half_s: float, chunks: list[Chunk]) -> None:
        """The step is half done, in time and in layers: whoever has come and may come first is computed."""
        self._compute(chunks)
        if self.steps.interruptible and self.inbox:
            commands, self.inbox = self.inbox, []
            for command in commands:
                self.steps.handle(command)
            while self.steps.interruptible and (others := self.steps.interject()):
                self.interjections += 1
                self._compute(others)
                self._end(others)
            self._deliver_events()
        self._process.loop.call_later(half_s, self._finish, chunks)

    def _finish(self, chunks: list[Chunk]) -> None:
        self._compute(chunks)
        self._end(chunks)
        self._say()

    def _end(self, chunks: list[Chunk]) -> None:
        self._process.world.invariants.changes += 1
        if self._process.network.chaos.step_fails(self._process):
            self.steps.fail(chunks, "the model failed")
        else:
            self.steps.finish(chunks, [self._draw(chunk) for chunk in chunks])

    def _say(self) -> None:
        self._deliver_events()
        self._busy = False
        if self.inbox or self.steps.has_work:
            self._wake()

    def _deliver_events(self) -> None:
        events = self.steps.take()
        if events:
            self._process.loop.call_soon(self._deliver, events)
        self._process.world.invariants.after_turn(self._process)

    def _compute(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            sequence, start = chunk.sequence, chunk.sequence.computed
            tokens = sequence.tokens[start : start + chunk.tokens]
            kv.write(self.memory, sequence.blocks, start, tokens)

    def _draw(self, chunk: Chunk) -> Drawn | None:
        sequence = chunk.sequence
        if not chunk.completes:
            return None
        token = kv.read(self.memory, sequence.blocks, len(sequence.tokens))
        asked = sequence.spec.sampling.logprobs is not None
        return Drawn(token, kv.logprobs(token) if asked else None)
