"""Which worker has probably seen which prompt prefix: a bounded memory of this front door's own dispatches.

Workers say nothing of their caches; what was sent there was cached there, until it was evicted. The index forgets like a
cache does, least recently used first, so it errs little; and an error costs a worse choice, never a wrong answer. One
entry a block, each a bit mask over workers. Whoever has seen a prefix has seen all shorter ones, and nobody is forgotten
in another order, so masks only shrink along a prompt and the longest prefix of a worker is found by bisection.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet

from tercet.blocks import HashDomain
from tercet.router.ledger import Life
from tercet.router.prefix_names import PrefixName, prefix_names, root_of


class PrefixIndex:
    """Name of a prefix → the workers that have seen it. One name stands for all tokens before its end."""

    def __init__(self, blocks_max: int) -> None:
        assert blocks_max > 0, blocks_max
        self._blocks_max = blocks_max
        self._seen: OrderedDict[PrefixName, int] = OrderedDict()
        self._bits: dict[Life, int] = {}
        self._lives: dict[int, Life] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def hits(self, names: Sequence[PrefixName]) -> dict[Life, int]:
        """For each worker that has seen any, how many leading blocks of `names`."""
        found: dict[Life, int] = {}
        still = self._mask(names[0]) if names else 0
        while still:
            depth = self._depth(still, names)
            further = still & self._mask(names[depth]) if depth < len(names) else 0
            self._note(found, still & ~further, depth)
            still = further
        return found

    def hit(self, life: Life, names: Sequence[PrefixName]) -> int:
        """How many leading blocks of `names` this worker has seen; costs the same however many workers there are."""
        bit = self._bits.get(life, 0)
        return self._depth(bit, names) if bit else 0

    def nearest(self, names: Sequence[PrefixName]) -> Iterator[Life]:
        """Who has seen any of `names`, who has seen most first; costs as much as is taken of it."""
        lives, told = self._lives, 0
        while depth := self._reach(names, besides=told):
            fresh = self._mask(names[depth - 1]) & ~told
            told |= fresh
            while fresh:
                bit = fresh & -fresh
                yield lives[bit]
                fresh ^= bit

    def record(self, life: Life, names: Sequence[PrefixName]) -> None:
        """`life` has, or will soon have, these leading blocks. The deepest are forgotten first."""
        bit = self._bits.get(life)
        if bit is None:
            bit = self._bits[life] = self._free_bit()
            self._lives[bit] = life
        seen = self._seen
        for name in reversed(names):
            seen[name] = seen.get(name, 0) | bit
            seen.move_to_end(name)
        while len(seen) > self._blocks_max:
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

    def _mask(self, name: PrefixName) -> int:
        return self._seen.get(name, 0)

    def _depth(self, mask: int, names: Sequence[PrefixName]) -> int:
        """How many leading blocks all workers in `mask` have seen."""
        seen = self._seen
        return bisect_left(names, True, key=lambda name: mask & seen.get(name, 0) != mask)

    def _reach(self, names: Sequence[PrefixName], besides: int) -> int:
        """How many leading blocks anybody who is not in the mask `besides` has seen."""
        seen = self._seen
        return bisect_left(names, True, key=lambda name: not seen.get(name, 0) & ~besides)

    def _free_bit(self) -> int:
        taken = sum(self._bits.values())
        return ~taken & (taken + 1)

    def _note(self, found: dict[Life, int], mask: int, depth: int) -> None:
        while mask:
            bit = mask & -mask
            found[self._lives[bit]] = depth
            mask ^= bit


class Prefix:
    """The names of one request's prefixes: the prompt's are computed once, the output's when somebody asks."""

    def __init__(self, prompt: Sequence[int], block_tokens: int, domain: HashDomain) -> None:
        self.block_tokens = block_tokens
        self._prompt, self._root = prompt, root_of(domain)
        self.names = prefix_names(prompt, block_tokens, self._root)

    def tokens(self, blocks: int) -> int:
        """How many tokens so many blocks are."""
        return blocks * self.block_tokens

    def extended(self, output: Sequence[int]) -> list[PrefixName]:
        """The names of prompt and output together."""
        known = self.tokens(len(self.names))
        parent = self.names[-1] if self.names else self._root
        rest = [*self._prompt[known:], *output]
        return self.names + prefix_names(rest, self.block_tokens, parent, known)
