"""One batch through the model: slices in, one drawn token for every sequence that is complete out.

The only place that calls the runner, and the place where time is measured. Changes no sequence.
"""

from collections.abc import Sequence as Rows
from dataclasses import dataclass
from typing import Protocol

from tercet.clock import Clock
from tercet.workers.batch import Chunk, Drawn
from tercet.workers.pace import Pace, StepContents
from tercet.workers.runner import BetweenLayers, DrawingRunner, Draws, Runner, Slice, go_on
from tercet.workers.sampler import Sampler


class Pending(Protocol):
    """A batch that was launched."""

    @property
    def over(self) -> bool:
        """`result` will not wait, and nothing of the batch is left to compute."""
        ...

    def result(self) -> list[Drawn | None]:
        """For each chunk what was drawn after it, None where the sequence goes on with another chunk. To be called once.

        Whatever the runner raises passes through; then the KV of these chunks is undefined.
        """
        ...


class Forward:
    """Runs chunks on one runner, one batch after the other, and tells the pace how long they took."""

    def __init__(self, runner: Runner, pace: Pace, clock: Clock) -> None:
        self._runner, self._pace, self._clock = runner, pace, clock
        self._drawing = runner if isinstance(runner, DrawingRunner) else None
        self._sampler = Sampler(runner.eos_token_ids)
        self._idle_since_s = clock.now_s()
        self._spent_s = 0.0

    def needs_log(self, chunks: list[Chunk]) -> bool:
        """Whether all tokens of these sequences must be known before they are launched: the host draws from their logits."""
        return self._drawing is None or not all(c.sequence.unshaped for c in chunks if c.completes)

    def launch(self, chunks: list[Chunk], between_layers: BetweenLayers = go_on) -> Pending:
        """Begin to compute, behind what was launched before; raises what `result` may raise.

        Runs that are made `between_layers`, where the batch is computed at once, are not counted as its time.
        """
        completes = [chunk.completes for chunk in chunks]
        contents = StepContents.of(chunks)
        slices = [
            self._slice(chunk, sample) for chunk, sample in zip(chunks, completes, strict=True)
        ]
        rows = [c.sequence for c, sample in zip(chunks, completes, strict=True) if sample]
        if self._drawing is None or self.needs_log(chunks):
            started_s = self._clock.now_s() - self._spent_s
            x_RV = self._runner.forward(slices, between_layers)
            drawn = self._sampler.draw(x_RV, rows) if rows else []
            took_s = self._clock.now_s() - self._spent_s - started_s
            self._spent_s += took_s
            self._pace.observe(contents, took_s)
            return Done(_spread(completes, drawn))
        started_s = self._clock.now_s()
        draws = self._drawing.launch(slices, [sequence.spec.sampling for sequence in rows])
        return UnderWay(self, draws, completes, contents, started_s)

    def landed(self, contents: StepContents, started_s: float) -> None:
        """A batch is over; the device began with it when it was launched and the one before was over."""
        now_s = self._clock.now_s()
        self._pace.observe(contents, now_s - max(started_s, self._idle_since_s))
        self._idle_since_s = now_s

    def _slice(self, chunk: Chunk, sample: bool) -> Slice:
        sequence, start = chunk.sequence, chunk.sequence.front
        tokens = sequence.tokens[start : start + chunk.tokens]
        fed = len(tokens) < chunk.tokens
        return Slice(tokens, start, sequence.blocks, sample, sequence.arrival, fed)


@dataclass(frozen=True, slots=True)
class Done:
    """A batch that was over when `launch` returned."""

    drawn: list[Drawn | None]
    over = True

    def result(self) -> list[Drawn | None]:
        return self.drawn


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A batch that a device computes."""

    forward: Forward
    draws: Draws
    completes: list[bool]
    contents: StepContents
    started_s: float
    over = False

    def result(self) -> list[Drawn | None]:
        tokens = self.draws.wait()
        self.forward.landed(self.contents, self.started_s)
        return _spread(self.completes, [Drawn(token) for token in tokens])


def _spread(completes: list[bool], drawn: Rows[Drawn]) -> list[Drawn | None]:
    rest = iter(drawn)
    return [next(rest) if sample else None for sample in completes]
