"""An engine on a timeline: the production code but for the model, of which only the time it takes is known."""

import random
from collections.abc import Callable
from itertools import takewhile

import numpy as np

from tercet.config import EngineConfig
from tercet.simulator.blank import TOKEN
from tercet.simulator.cruise import CruiseScheduler
from tercet.simulator.engine_model import EngineModel, KnownPace
from tercet.simulator.leap import Leap
from tercet.simulator.stretches import Stretches, Told
from tercet.simulator.timeline import Alarm, Timeline
from tercet.workers.batch import Chunk, Drawn
from tercet.workers.block_pool import BlockPool
from tercet.workers.engine_load import EngineLoad
from tercet.workers.events import Arrived, Command, Event
from tercet.workers.limits import Limits
from tercet.workers.outbox import Outbox
from tercet.workers.pace import StepContents
from tercet.workers.residents import KnownHashes
from tercet.workers.sequence import Phase, Sequence
from tercet.workers.steps import Steps

DRAWN = Drawn(TOKEN)

Deliver = Callable[[list[Event]], None]


class ModelledEngine:
    """Commands wait for the end of the step under way, as on the engine's thread; what happens in a step is delivered at
    its end. With `leaps`, steps in which nothing but decoding happens are computed as one, up to where something does or a
    command comes; the tokens they bring are said when the request ends, or by `flush`.
    """

    def __init__(
        self,
        timeline: Timeline,
        config: EngineConfig,
        model: EngineModel,
        known_hashes: KnownHashes,
        deliver: Deliver,
        told: Told,
        *,
        speed: float,
        dice: random.Random,
        leaps: bool,
    ) -> None:
        self._timeline, self._deliver, self._dice, self._noise = (
            timeline,
            deliver,
            dice,
            model.noise,
        )
        self._costs = model.at_speed(speed)
        self.pool = BlockPool(config.kv_blocks, np.zeros(config.kv_blocks, dtype=np.uint64))
        self._stretches = Stretches(timeline, told)
        most = model.context_tokens_max
        self._rest = Outbox(self.pool)
        self._scheduler = CruiseScheduler(
            config, self.pool, most, self._stretches.end, self._say_rest, cruises=leaps
        )
        self._steps = Steps(
            TracedLimits(TOKEN + 1, most, frozenset(), config.block_tokens, config.kv_blocks),
            self._scheduler,
            KnownPace(self._costs),
            start_within_s=config.start_within_s,
            known_hashes=known_hashes,
        )
        self._inbox: list[Command] = []
        self._leap: Leap | None = None
        self._chunks: list[Chunk] = []
        self._alarm: Alarm | None = None
        self._frozen = False
        self._spent_s = 0.0

    @property
    def busy_s(self) -> float:
        """Time spent in steps until now."""
        leap = self._leap
        return self._spent_s + (self._timeline.now_s() - leap.start_s if leap else 0.0)

    def post(self, *commands: Command) -> None:
        """They are handled after the caller's turn, or between the step under way and the next one."""
        self._inbox += commands
        if self._leap is not None:
            if self._matters(commands):
                self._cut(self._leap)
        else:
            self._wake_soon()

    def load(self) -> EngineLoad:
        """The figures of this moment."""
        self._account()
        return self._steps.load()

    def flush(self) -> list[Event]:
        """Say the tokens that were drawn until now."""
        self._account()
        cruise = self._scheduler.cruise
        for sequence in cruise.members:
            cruise.bring_up(sequence)
            self._say_rest(sequence)
        return self._rest.take()

    def stop(self) -> None:
        """Nothing happens any more."""
        self._account()
        leap, now_s = self._leap, self._timeline.now_s()
        self._stretches.end_all(leap.end_s(leap.taken) if leap else now_s)
        if self._alarm is not None:
            self._alarm.cancel()

    def freeze(self) -> None:
        """The process is stopped, but for the step on the device."""
        self._frozen = True
        if self._leap is not None:
            self._cut(self._leap)

    def thaw(self) -> None:
        self._frozen = False
        if self._leap is None:
            self._wake_soon()
        elif self._alarm is None:  # it has rung in vain
            self._end()

    def check_integrity(self) -> None:
        """Asserts that every block and every sequence is where it should be."""
        self._steps.check_integrity()

    def _matters(self, commands: tuple[Command, ...]) -> bool:
        """Whether they can change who takes part in the next step. KV that has arrived makes blocks findable, for those that
        look for blocks: the queue, and commands that come later."""
        arrived = all(isinstance(command, Arrived) for command in commands)
        return not arrived or bool(self._scheduler.waiting)

    # ---- steps -------------------------------------------------------------------------------------------------------

    def _wake_soon(self) -> None:
        if self._alarm is None:
            self._alarm = self._timeline.call_later(0.0, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        if not self._frozen:
            events = self._turn()
            if events:
                self._deliver(events)

    def _turn(self) -> list[Event]:
        """No step is under way: handle what has come and begin the next one; returns what is to be said before its end."""
        steps, events = self._steps, []
        commands, self._inbox = self._inbox, []
        for command in commands:
            steps.handle(command)
        # Where all cruise the engine would call itself stalled; so it is asked once in any case.
        while not (chunks := steps.plan()):
            events += self._rest.take() + steps.take()
            if not steps.has_work:
                break
        if chunks or self._scheduler.cruise.members:
            self._begin(chunks)
        return events + self._rest.take()

    def _say_rest(self, sequence: Sequence) -> None:
        """The tokens that its owner does not know, as if each had been said in its time."""
        if sequence.output_tokens > sequence.known_output:
            self._rest.tokens(sequence, None, None)

    def _begin(self, chunks: list[Chunk]) -> None:
        cruise, contents = self._scheduler.cruise, StepContents.of(chunks)
        contents.decodes += len(cruise.members)
        contents.decode_context += cruise.context_tokens
        steps = 1 if chunks else cruise.steps_to_go
        first_s, growth_s = self._costs.seconds(contents), self._costs.growth_s(contents)
        if self._noise:
            # The mean of so many steps: their noise partly cancels.
            factor = self._dice.lognormvariate(0.0, self._noise / steps**0.5)
            first_s, growth_s = first_s * factor, growth_s * factor
        now_s = self._timeline.now_s()
        leap = self._leap = Leap(now_s, first_s, growth_s, steps)
        self._chunks = chunks
        for sequence in self._scheduler.take_started():
            if sequence.phase is Phase.RUNNING:
                self._stretches.draws(sequence, leap.end_s(1), first_s)
        self._alarm = self._timeline.call_at(leap.end_s(steps), self._end)

    def _cut(self, leap: Leap) -> None:
        """End with the step that is under way now."""
        steps = leap.whole(self._timeline.now_s()) + 1
        if steps < leap.steps:
            assert self._alarm is not None
            self._alarm.cancel()
            leap.steps = steps
            self._alarm = self._timeline.call_at(leap.end_s(steps), self._end)

    def _account(self) -> None:
        """The steps that are over have brought their tokens, but for those that come with the end of all."""
        leap = self._leap
        if leap is not None:
            self._count(leap, min(leap.whole(self._timeline.now_s()), leap.steps - 1))

    def _count(self, leap: Leap, steps: int) -> None:
        fresh = steps - leap.taken
        if fresh > 0:
            self._scheduler.cruise.take(fresh)
            self._stretches.times.add(leap.step_s(leap.taken), leap.growth_s, fresh)
            leap.taken = steps

    def _count_all(self, leap: Leap, now_s: float) -> None:
        """Where the process was stopped, the last step's tokens come late."""
        late_s = now_s - leap.end_s(leap.steps)
        if late_s <= 0:
            self._count(leap, leap.steps)
        else:
            self._count(leap, leap.steps - 1)
            self._scheduler.cruise.take(1)
            self._stretches.times.add(leap.step_s(leap.steps - 1) + late_s, 0.0, 1)

    def _end(self) -> None:
        leap, chunks, self._alarm = self._leap, self._chunks, None
        if self._frozen:
            return
        assert leap is not None, "there is no step to end"
        now_s = self._timeline.now_s()
        self._count_all(leap, now_s)
        self._spent_s += now_s - leap.start_s
        self._leap, self._chunks = None, []
        self._finish(self._in_order(self._arrive(), chunks))
        events = self._steps.take()
        events += self._turn()
        if events:
            self._deliver(events)

    def _arrive(self) -> list[Chunk]:
        """See to those whose blocks are full; returns the last tokens of those who end."""
        cruise, last = self._scheduler.cruise, []
        for sequence, ends in cruise.arrived():
            if ends:
                last.append(Chunk(sequence, 1))
            else:
                self._scheduler.advance(sequence, sequence.computed)
                cruise.go_on(sequence)
        return last

    def _in_order(self, cruised: list[Chunk], chunks: list[Chunk]) -> list[Chunk]:
        """As if all had been scheduled one by one: decodes by rank, then the others."""
        if not (cruised and chunks):
            return cruised or chunks
        decodes = list(takewhile(self._scheduler.went_on, chunks))
        ranked = sorted(cruised + decodes, key=lambda chunk: chunk.sequence.rank)
        return ranked + chunks[len(decodes) :]

    def _finish(self, chunks: list[Chunk]) -> None:
        results = [DRAWN if chunk.completes else None for chunk in chunks]
        done = [chunk.sequence for chunk in chunks if chunk.completes]
        for sequence in done:
            self._stretches.drawn(sequence)
        self._steps.finish(chunks, results)
        for sequence in done:
            if sequence.phase is Phase.RUNNING:
                self._scheduler.decodes(sequence)


class TracedLimits(Limits):
    """Nobody looks at the tokens of a trace's prompts: all are alike."""

    def unknown_token(self, tokens: object) -> bool:
        return False
