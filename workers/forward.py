"""One batch through the model: slices in, one drawn token for every sequence that is complete out.

The only place that calls the runner, and the place where time is measured. Changes no sequence.
"""

from tercet.clock import Clock
from tercet.workers.batch import Chunk, Drawn
from tercet.workers.pace import Pace, StepContents
from tercet.workers.runner import BetweenLayers, Runner, Slice, go_on
from tercet.workers.sampler import Sampler


class Forward:
    """Runs chunks on one runner and tells the pace how long they took."""

    def __init__(self, runner: Runner, pace: Pace, clock: Clock) -> None:
        self._runner, self._pace, self._clock = runner, pace, clock
        self._sampler = Sampler(runner.eos_token_ids)
        self._spent_s = 0.0

    def run(self, chunks: list[Chunk], between_layers: BetweenLayers = go_on) -> list[Drawn | None]:
        """For each chunk what was drawn after it, None where the sequence goes on with another chunk.

        Runs that are made `between_layers` are not counted as this one's time. Whatever the runner raises passes through; then
        the KV of these chunks is undefined.
        """
        contents = StepContents.of(chunks)
        completes = [chunk.completes for chunk in chunks]
        slices = [
            self._slice(chunk, sample) for chunk, sample in zip(chunks, completes, strict=True)
        ]
        started_s = self._clock.now_s() - self._spent_s
        x_RV = self._runner.forward(slices, between_layers)
        rows = [c.sequence for c, sample in zip(chunks, completes, strict=True) if sample]
        drawn = iter(self._sampler.draw(x_RV, rows) if rows else ())
        took_s = self._clock.now_s() - self._spent_s - started_s
        self._spent_s += took_s
        self._pace.observe(contents, took_s)
        return [next(drawn) if sample else None for sample in completes]

    def _slice(self, chunk: Chunk, sample: bool) -> Slice:
        sequence, start = chunk.sequence, chunk.sequence.computed
        tokens = sequence.tokens[start : start + chunk.tokens]
        return Slice(tokens, start, sequence.blocks, sample)
