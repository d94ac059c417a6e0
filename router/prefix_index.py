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
from collections.abc import Container, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import cast

from tercet.blocks import HashDomain
from tercet.router.ledger import Life
from tercet.router.prefix_names import PrefixName, prefix_names, root_of

_PLACES = 2**32 - 1
"""The bits of a mask that count places and stand for no worker."""
PLACES_MAX = 4
"""Places in the queue for each name there may be. Who was not recorded among so many is forgotten though there is room."""
LOOKS_MAX = 4096
"""Places looked at in one go: 1 ms."""
STEP_TOKENS = 64
"""A prompt of 8,192 tokens leaves 131 names instead of 512, and a worker computes the most that is overlooked in 3 ms."""


class PrefixIndex:
    """Name of a prefix → the workers that have seen it. One name stands for all tokens before its end.

    Names come into a queue whenever they are recorded, and one is forgotten with its last place there: the least recently used.
    That takes a third less memory than a dict that keeps such an order, and the garbage collector does not walk along it.
    """

    def __init__(self, names_max: int, step: int = 1) -> None:
        assert min(names_max, step) > 0, (names_max, step)
        self._names_max, self._step = names_max, step
        self._seen: dict[PrefixName, int] = {}
        """Masks, with the number of further places in the queue; one may be empty."""
        self._queue = Queue()
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
        if step == 1:
            return steps
        return self._depth(bit, names, 1, steps * step, min(steps * step + step - 1, len(names)))

    def nearest(self, names: Sequence[PrefixName], beyond: int = 0) -> Iterator[Life]:
        """Who has seen more than `beyond` of `names`, who has seen most first; costs as much as is taken of it."""
        steps = (beyond + 1) // self._step
        if beyond >= len(names):
            return
        if steps and not self._seen.get(names[steps * self._step - 1], 0) & self._everybody:
            return
        for depth, mask in self._groups(names):
            if depth <= beyond:
                return
            yield from self._of(mask)

    def record(self, life: Life, names: Sequence[PrefixName]) -> None:
        """`life` has, or will soon have, these leading blocks. The deepest are forgotten first."""
        bit = self._bits.get(life)
        if bit is None:
            bit = self._bits[life] = self._free_bit()
            self._lives[bit], self._everybody = life, self._everybody | bit
        seen, step = self._seen, self._step
        known = seen.get
        end = max(0, len(names) // step - 1) * step
        remembered = [*names[step - 1 : end : step], *names[end:]]
        remembered.reverse()
        for name in remembered:
            mask = known(name)
            seen[name] = bit if mask is None else (mask | bit) + 1
        self._queue.extend(remembered)
        self._forget(LOOKS_MAX + 2 * len(remembered))

    def take_back(self, life: Life, names: Iterable[PrefixName]) -> None:
        """`life` will not have these after all."""
        bit, seen = self._bits.get(life, 0), self._seen
        for name in names:
            mask = seen.get(name, 0)
            if mask & bit:
                seen[name] = mask ^ bit

    def forget(self, life: Life) -> None:
        """The worker's memory is gone; costs a walk over the whole index, and workers are lost rarely."""
        bit = self._bits.pop(life, None)
        if bit is None:
            return
        del self._lives[bit]
        self._everybody ^= bit
        masks = self._seen.items()
        kept = {name: mask & ~bit for name, mask in masks if mask & self._everybody}
        self._queue.keep_only(kept)
        self._seen = kept

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

    def _free_bit(self) -> int:
        """The lowest that nobody has."""
        taken = self._everybody | _PLACES
        return ~taken & (taken + 1)

    def _forget(self, looks: int) -> None:
        """Those over the bounds, after at most so many looks: where nearly all were recorded again there are many to go, and
        the rest is left for the next time."""
        seen, queue, names_max = self._seen, self._queue, self._names_max
        while looks and (len(seen) > names_max or len(queue) > PLACES_MAX * names_max):
            looks -= 1
            name = queue.pop()
            mask = seen[name]
            if mask & _PLACES:
                seen[name] = mask - 1
            else:
                del seen[name]

    def _of(self, mask: int) -> Iterator[Life]:
        while mask:
            bit = mask & -mask
            yield self._lives[bit]
            mask ^= bit


class Queue:
    """Names, first in, first out; 8 bytes each."""

    def __init__(self) -> None:
        self._names = array("Q")
        self._popped = 0

    def __len__(self) -> int:
        return len(self._names) - self._popped

    def extend(self, names: Sequence[PrefixName]) -> None:
        self._names.extend(names)

    def pop(self) -> PrefixName:
        """The first one; there must be one."""
        name = PrefixName(self._names[self._popped])
        self._popped += 1
        if 2 * self._popped > len(self._names):
            del self._names[: self._popped]
            self._popped = 0
        return name

    def keep_only(self, names: Container[PrefixName]) -> None:
        left = self._names[self._popped :]
        self._names = array("Q", [name for name in left if name in names])
        self._popped = 0


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
