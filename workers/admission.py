"""Whether a request may join the batch now, beside what it needs at once: what the running ones will need counts too. Pure."""

from collections.abc import Callable, Mapping
from collections.abc import Sequence as Many
from typing import NamedTuple, Protocol

from tercet.workers.block_pool import BlockPool
from tercet.workers.foresight import Growth, OutputLengths, peak
from tercet.workers.sequence import Sequence

LENGTHS_MIN = 32
"""Outputs that must have ended before predictions are made of them."""
RESERVE_SHARE = 0.05
"""Of the pool, kept free for predictions that come out too low: with 0.02 twice as many requests gave way for 1 % more output."""
GOLDEN = 0.6180339887498949


class Admission(Protocol):
    """Keeps the pool from running out, or lets it."""

    def admits(self, sequence: Sequence, missing: int, growing: Many[Sequence]) -> bool:
        """Whether `sequence` may take `missing` blocks beside those that will want more. Who is alone may have them all."""
        ...

    def ended(self, sequence: Sequence) -> None:
        """A request that was running is over."""
        ...


class Aggressive:
    """One more block for everybody who grows: whoever comes last gives way when that was not enough."""

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self._pool = pool

    def admits(self, sequence: Sequence, missing: int, growing: Many[Sequence]) -> bool:
        return missing + len(growing) <= self._pool.free

    def ended(self, sequence: Sequence) -> None:
        pass


class WorstCase:
    """Everybody may become as long as they asked for, all at once: nobody ever gives way."""

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self._pool, self._block_tokens = pool, block_tokens

    def admits(self, sequence: Sequence, missing: int, growing: Many[Sequence]) -> bool:
        more = sum(self._more(other, len(other.blocks)) for other in growing)
        if growing and not sequence.hand_off:
            more += self._more(sequence, -(-len(sequence.tokens) // self._block_tokens))
        return missing + more <= self._pool.free

    def ended(self, sequence: Sequence) -> None:
        pass

    def _more(self, sequence: Sequence, held: int) -> int:
        # The last token never gets KV.
        tokens = sequence.prompt_tokens + sequence.spec.sampling.max_tokens - 1
        return max(0, -(-tokens // self._block_tokens) - held)


class Refusal(NamedTuple):
    """Who was refused, and what it was like then."""

    sequence: Sequence
    growing: int
    free: int

    def holds(self, sequence: Sequence, growing: int, free: int) -> bool:
        """Nobody has come or gone, and not everybody has taken a block: looking again would be dear and tell little."""
        same = sequence is self.sequence and growing == self.growing
        return same and self.free - growing < free <= self.free


class PastFuture:
    """Everybody becomes as long as others before: the predicted peak must fit, less a reserve.

    Each request has a quantile of its own, spaced so that those of any few consecutive ones are spread over [0, 1): together
    they are a fair sample of what may happen. It holds among the outputs longer than what the request has by now, so a
    request that goes on and on is thought ever longer.

    Looks at blocks only, never at how full the last one is, so nothing changes while nobody takes or frees one.
    """

    def __init__(self, pool: BlockPool, block_tokens: int) -> None:
        self._pool, self._block_tokens = pool, block_tokens
        self._lengths = OutputLengths()
        self._refusal: Refusal | None = None
        self._reserve = int(RESERVE_SHARE * pool.blocks)

    def admits(self, sequence: Sequence, missing: int, growing: Many[Sequence]) -> bool:
        free = self._pool.free
        if missing + len(growing) > free:
            return False
        if not growing or len(self._lengths) < LENGTHS_MIN:
            return True
        if self._refusal and self._refusal.holds(sequence, len(growing), free):
            return False
        fits = self._peak_fits(sequence, missing, growing)
        self._refusal = None if fits else Refusal(sequence, len(growing), free)
        return fits

    def ended(self, sequence: Sequence) -> None:
        if not sequence.hand_off:
            self._lengths.observe(sequence.output_tokens)

    def _peak_fits(self, sequence: Sequence, missing: int, growing: Many[Sequence]) -> bool:
        growths = [
            Growth(self._pool.exclusive(other.blocks), self._more(other, len(other.blocks)))
            for other in growing
        ]
        room = self._pool.free + sum(growth.held for growth in growths) - self._reserve
        if sequence.hand_off:  # it stays as it is, until another worker has pulled it
            return missing + peak(growths) <= room
        held = -(-len(sequence.tokens) // self._block_tokens)
        return peak([*growths, Growth(missing, self._more(sequence, held))]) <= room

    def _more(self, sequence: Sequence, held: int) -> int:
        prompt, block_tokens = sequence.prompt_tokens, self._block_tokens
        produced = max(0, (held - 1) * block_tokens + 1 - prompt)
        share = sequence.arrival * GOLDEN % 1.0
        predicted = self._lengths.predict(produced, share)
        tokens = prompt + min(predicted, sequence.spec.sampling.max_tokens) - 1
        return max(0, -(-tokens // block_tokens) - held)


ADMISSIONS: Mapping[str, Callable[[BlockPool, int], Admission]] = {
    "aggressive": Aggressive,
    "worst_case": WorstCase,
    "past_future": PastFuture,
}
"""By the name in the cluster file; each is given the pool and the tokens of a block."""
