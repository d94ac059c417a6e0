"""Which worker has probably seen which prompt prefix: a bounded memory of this front door's own dispatches.

Workers say nothing of their caches; what was sent there was cached there, until it was evicted. The index forgets like a
cache does, least recently used first, so it errs little; and an error costs a worse choice, never a wrong answer. One
entry a block, each a bit mask over workers: the longest prefix of *every* worker is found in one walk along the prompt.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from tercet.blocks import HashDomain, hash_block, hash_blocks
from tercet.ids import BlockHash
from tercet.router.ledger import Life


class PrefixIndex:
    """Block hash → the workers that have seen it. Hashes are chained, so one hash stands for all tokens before it."""

    def __init__(self, blocks_max: int) -> None:
        assert blocks_max > 0, blocks_max
        self._blocks_max = blocks_max
        self._seen: OrderedDict[BlockHash, int] = OrderedDict()
        self._bits: dict[Life, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def hits(self, hashes: Sequence[BlockHash]) -> dict[Life, int]:
        """For each worker that has seen any, how many leading blocks of `hashes`."""
        lives = {bit: life for life, bit in self._bits.items()}
        found: dict[Life, int] = {}
        here = -1
        for depth, block in enumerate(hashes):
            still = here & self._seen.get(block, 0)
            if depth and still != here:
                self._note(found, lives, here & ~still, depth)
            here = still
            if not here:
                break
        else:
            if hashes:
                self._note(found, lives, here, len(hashes))
        return found

    def record(self, life: Life, hashes: Iterable[BlockHash]) -> None:
        """`life` has, or will soon have, these leading blocks. The deepest are forgotten first."""
        bit = self._bits.get(life)
        if bit is None:
            bit = self._bits[life] = self._free_bit()
        for block in reversed(list(hashes)):
            self._seen[block] = self._seen.get(block, 0) | bit
            self._seen.move_to_end(block)
        while len(self._seen) > self._blocks_max:
            self._seen.popitem(last=False)

    def forget(self, life: Life) -> None:
        """The worker's memory is gone; costs a walk over the whole index, and workers are lost rarely."""
        bit = self._bits.pop(life, None)
        if bit is None:
            return
        for block, mask in list(self._seen.items()):
            if mask == bit:
                del self._seen[block]
            elif mask & bit:
                self._seen[block] = mask & ~bit

    def keep_only(self, lives: AbstractSet[Life]) -> None:
        """Forget everybody else."""
        for life in list(self._bits):
            if life not in lives:
                self.forget(life)

    def _free_bit(self) -> int:
        taken = sum(self._bits.values())
        return ~taken & (taken + 1)

    @staticmethod
    def _note(found: dict[Life, int], lives: dict[int, Life], mask: int, depth: int) -> None:
        while mask:
            bit = mask & -mask
            found[lives[bit]] = depth
            mask ^= bit


class Prefix:
    """The block hashes of one request's tokens: the prompt's are computed once, the output's when somebody asks."""

    def __init__(self, prompt: Sequence[int], block_tokens: int, domain: HashDomain) -> None:
        self._prompt, self._block_tokens, self._domain = prompt, block_tokens, domain
        self.hashes = tuple(hash_blocks(prompt, block_tokens, domain))

    def tokens(self, blocks: int) -> int:
        """How many tokens so many blocks are."""
        return blocks * self._block_tokens

    def extended(self, output: Sequence[int]) -> list[BlockHash]:
        """The hashes of prompt and output together."""
        hashes, size = list(self.hashes), self._block_tokens
        parent = hashes[-1] if hashes else self._domain.root()
        rest = [*self._prompt[len(hashes) * size :], *output]
        for start in range(0, len(rest) - size + 1, size):
            parent = hash_block(parent, rest[start : start + size])
            hashes.append(parent)
        return hashes
