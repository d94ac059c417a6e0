"""Which worker has probably seen which prompt prefix: a bounded memory of this front door's own dispatches.

Workers say nothing of their caches; what was sent there was cached there, until it was evicted. The index forgets like a
cache does, least recently used first, so it errs little; and an error costs a worse choice, never a wrong answer.

Of a prompt every `step`th block is remembered, and at its end all since the step before the last, each with a bit mask over
workers:

    blocks      1  2  3  4  5  6  7  8  9 10        step 4
    remembered           o  o  o  o  o  o  o

So a prompt that goes on where another one ended, or differs from it in a last question, finds all they have in common; one
that leaves it earlier finds at most step - 1 blocks too few.

Whoever has seen a prefix has seen all shorter ones, and nobody is forgotten in another order, so masks only shrink
along a prompt and the longest prefix of a worker is found by bisection, first of the steps and then of the blocks after them.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

from tercet.blocks import HashDomain
from tercet.router.ledger import Life
from tercet.router.prefix_names import PrefixName, prefix_names, root_of

STEP_TOKENS = 64
"""A prompt of 8,192 tokens leaves 131 names instead of 512, and a worker computes the most that is overlooked in 3 ms."""


class PrefixIndex:
    """Name of a prefix → the workers that have seen it. One name stands for all tokens before its end."""

    def __init__(self, names_max: int, step: int = 1) -> None:
        assert min(names_max, step) > 0, (names_max, step)
        self._names_max, self._step = names_max, step
        self._seen: OrderedDict[PrefixName, int] = OrderedDict()
        self._bits: dict[Life, int] = {}
        self._lives: dict[int, Life] = {}
        self._everybody = 0
        """The mask of all who have a bit."""

    def __len__(self) -> int:
        return len(self._seen)

    def hits(self, names: Sequence[PrefixName]) -> dict[Life, int]:
        """For each worker that has seen any, how many leading blocks of `names`."""
        return {life: depth for depth, mask in self._groups(names) for life in self._of(mask)}

    def hit(self, life: Life, names: Sequence[PrefixName]) -> int:
        """How many leading blocks of `names` this worker has seen; costs the same however many workers there are."""
        bit, step = self._bits.get(life, 0), self._step
        if not bit:
            return 0
        steps = self._depth(bit, names, step, 0, len(names) // step)
        return self._depth(bit, names, 1, steps * step, min(steps * step + step - 1, len(names)))

    def nearest(self, names: Sequence[PrefixName], beyond: int = 0) -> Iterator[Life]:
        """Who has seen more than `beyond` of `names`, who has seen most first; costs as much as is taken of it."""
        steps = (beyond + 1) // self._step
        if beyond >= len(names) or (steps and names[steps * self._step - 1] not in self._seen):
            return
        for depth, mask in self._groups(names):
            if depth <= beyond:
                return
            yield from self._of(mask)

    def record(self, life: Life, names: Sequence[PrefixName]) -> None:
        """`life` has, or will soon have, these leading blocks. The deepest are forgotten first."""
        bit = self._bits.get(life)
        if bit is None:
            everybody = self._everybody
            bit = self._bits[life] = ~everybody & (everybody + 1)  # the lowest that is free
            self._lives[bit], self._everybody = life, everybody | bit
        seen, step = self._seen, self._step
        pop = seen.pop
        end = max(0, len(names) // step - 1) * step
        remembered = [*names[step - 1 : end : step], *names[end:]]
        for name in reversed(remembered):
            seen[name] = pop(name, 0) | bit
        while len(seen) > self._names_max:
            seen.popitem(last=False)

    def take_back(self, life: Life, names: Iterable[PrefixName]) -> None:
        """`life` will not have these after all."""
        bit, seen = self._bits.get(life, 0), self._seen
        for name in names:
            mask = seen.get(name, 0)
            if mask == bit:
                seen.pop(name, None)
            elif mask & bit:
                seen[name] = mask & ~bit

    def forget(self, life: Life) -> None:
        """The worker's memory is gone; costs a walk over the whole index, and workers are lost rarely."""
        bit = self._bits.pop(life, None)
        if bit is None:
            return
        del self._lives[bit]
        self._everybody ^= bit
        for name, mask in list(self._seen.items()):
            if mask == bit:
                del self._seen[name]
            elif mask & bit:
                self._seen[name] = mask & ~bit

    def keep_only(self, lives: AbstractSet[Life]) -> None:
        """Forget everybody else."""
        for life in list(self._bits):
            if life not in lives:
                self.forget(life)

    def _groups(self, names: Sequence[PrefixName]) -> Iterator[tuple[int, int]]:
        """How many leading blocks of `names` are seen and the mask of those who have seen exactly these, most first."""
        step = self._step
        for steps, some in self._deepest_first(self._everybody, names[step - 1 :: step]):
            start = steps * step
            for blocks, mask in self._deepest_first(some, names[start : start + step - 1]):
                if start + blocks:
                    yield start + blocks, mask

    def _deepest_first(self, lives: int, names: Sequence[PrefixName]) -> Iterator[tuple[int, int]]:
        """Those in the mask `lives` by how many leading `names` they have seen, none being the last."""
        seen = self._seen
        left = begun = seen.get(names[0], 0) & lives if names else 0
        while left:
            depth = self._depth(left, names, 1, 0, len(names))
            reached = seen[names[depth - 1]] & left
            yield depth, reached
            left &= ~reached
        yield 0, lives & ~begun

    def _depth(
        self, lives: int, names: Sequence[PrefixName], step: int, low: int, high: int
    ) -> int:
        """How many times `step` blocks any in the mask `lives` has seen: at least `low`, at most `high`, by bisection."""
        seen = self._seen
        while low < high:
            middle = (low + high) // 2
            if seen.get(names[middle * step + step - 1], 0) & lives:
                low = middle + 1
            else:
                high = middle
        return low

    def _of(self, mask: int) -> Iterator[Life]:
        while mask:
            bit = mask & -mask
            yield self._lives[bit]
            mask ^= bit


class Prefix:
    """The names of one request's prefixes: the prompt's are computed once, the output's when somebody asks."""

    names: Sequence[PrefixName]

    def __init__(
        self, prompt: "Sequence[int] | array[int]", block_tokens: int, domain: HashDomain
    ) -> None:
        self.block_tokens, self._root = block_tokens, root_of(domain)
        self._named = prefix_names(prompt, block_tokens, self._root)
        self.names = cast("Sequence[PrefixName]", self._named)
        self._rest = prompt[self.tokens(len(self.names)) :]
        """Tokens of the prompt that have no name yet."""

    def tokens(self, blocks: int) -> int:
        """How many tokens so many blocks are."""
        return blocks * self.block_tokens

    def extended(self, output: Sequence[int]) -> Sequence[PrefixName]:
        """The names of prompt and output together."""
        parent = self.names[-1] if self.names else self._root
        position = self.tokens(len(self.names))
        more = prefix_names([*self._rest, *output], self.block_tokens, parent, position)
        return cast("Sequence[PrefixName]", self._named + more)
