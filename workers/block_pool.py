"""Which KV block belongs to whom: reference counts, the prefix cache, and blocks nobody may touch.

A block is in exactly one of four places:

    vacant       no content that anyone could want
    referenced   in the block table of one or more sequences; may be cached at the same time
    idle         cached under its hash and referenced by nobody; may be evicted, least recently used first, but retained
                 ones after all others, those whose retention ends first before those whose ends later; pinned ones not
    quarantined  a transfer that nobody waits for any more may still write into it

Knows block numbers, never their memory. A block's generation word rises when the block is given away for new content,
before anything is written: a remote reader that finds the word unchanged after its read has read the old content whole.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from tercet.ids import BlockHash, BlockId
from tercet.workers.retentions import Retentions


class BlockPool:
    """`blocks` blocks; `generations` is the array of their generation words, `uint64[blocks]`, first used as 1.

    At most `retained_max` of them are retained; they too are given away when nothing else is left.
    """

    def __init__(
        self, blocks: int, generations: npt.NDArray[np.uint64], retained_max: int = 0
    ) -> None:
        assert generations.shape == (blocks,), f"{blocks=} {generations.shape=}"
        self.blocks = blocks
        self._generations = generations.data
        self._references = [0] * blocks
        # Looked at by numpy as a whole, and one by one, ten times faster, as what it is.
        self._vacant = bytearray(b"\1" * blocks)
        self._vacant_array = np.frombuffer(self._vacant, dtype=np.bool_)
        self._vacancies = blocks
        # In order of use: the first one that is not retained is evicted next.
        self._idle: OrderedDict[BlockId, None] = OrderedDict()
        # Idle too: their turn came while they were retained, so without a retention they would be gone.
        self._spared: set[BlockId] = set()
        self._retentions = Retentions(retained_max)
        self._now_s = 0.0
        self._cached: dict[BlockHash, BlockId] = {}
        self._hash_of: dict[BlockId, BlockHash] = {}
        self._quarantined: set[BlockId] = set()
        self._pinned: set[BlockId] = set()
        self._pinned_at_rest = 0
        self._comes_to_rest: Callable[[BlockId, BlockHash], None] | None = None

    def watch(self, comes_to_rest: Callable[[BlockId, BlockHash], None]) -> None:
        """Tell of every cached block that nobody references any more."""
        self._comes_to_rest = comes_to_rest

    @property
    def free(self) -> int:
        """Blocks that `allocate` can give: vacant ones and cached ones that nobody references."""
        return self._vacancies + len(self._idle) + len(self._spared) - self._pinned_at_rest

    @property
    def used(self) -> int:
        """Blocks referenced by sequences, or pinned."""
        return self.blocks - self.free - len(self._quarantined)

    @property
    def quarantined(self) -> int:
        return len(self._quarantined)

    @property
    def retained(self) -> int:
        """Cached blocks that somebody has asked to retain, referenced or not."""
        return len(self._retentions)

    @property
    def cached(self) -> int:
        """Blocks that can be found by their hash, referenced or not."""
        return len(self._cached)

    @property
    def hashes(self) -> Iterable[BlockHash]:
        """Under which blocks can be found."""
        return self._cached.keys()

    def generations(self, blocks: Iterable[BlockId]) -> tuple[int, ...]:
        """The generation word of each."""
        words = self._generations
        return tuple([words[block] for block in blocks])

    def exclusive(self, blocks: Sequence[BlockId]) -> int:
        """How many of a table's blocks nobody else references; whoever shares some is taken to share the first ones."""
        references = self._references
        if not blocks or references[blocks[0]] == 1:
            return len(blocks)
        return len(blocks) - bisect_left(blocks, True, key=lambda block: references[block] == 1)

    def lookup(self, hashes: Sequence[BlockHash]) -> list[BlockId]:
        """The cached blocks of the longest prefix of `hashes`. Changes nothing: `share` what is wanted."""
        found: list[BlockId] = []
        for name in hashes:
            block = self._cached.get(name)
            if block is None:
                break
            found.append(block)
        return found

    def find(self, name: BlockHash) -> BlockId | None:
        """The cached block of this hash."""
        return self._cached.get(name)

    def rests(self, block: BlockId, name: BlockHash) -> bool:
        """Whether it has this content, and nobody references it."""
        return self._references[block] == 0 and self._hash_of.get(block) == name

    def share(self, blocks: Iterable[BlockId]) -> None:
        """One more reference to each of these cached or referenced blocks."""
        for block in blocks:
            if self._references[block] == 0:
                idle = block in self._idle or block in self._spared
                assert idle, f"{block=} holds nothing to share"
                self._idle.pop(block, None)
                self._spared.discard(block)
                if block in self._pinned:
                    self._pinned_at_rest -= 1
            self._references[block] += 1

    def allocate(self, count: int, after: BlockId | None = None) -> list[BlockId] | None:
        """`count` blocks with one reference each and new generations, in as few ascending runs as possible, or None.

        `after` is the block they will follow in a table: the run goes on there if it can.
        """
        if count > self.free:
            return None
        if count > self._vacancies:
            self._evict(count - self._vacancies)
        blocks = self._choose(count, after)
        self._vacancies -= count
        vacant, references, generations = self._vacant, self._references, self._generations
        for block in blocks:
            vacant[block] = False
            references[block] = 1
            generations[block] += 1
        return blocks

    def release(self, blocks: Sequence[BlockId]) -> None:
        """One reference less to each; cached blocks stay findable, later ones of a table are evicted before earlier ones."""
        references, hash_of, idle = self._references, self._hash_of, self._idle
        watcher = self._comes_to_rest
        for block in reversed(blocks):
            left = references[block] = references[block] - 1
            assert left >= 0, f"{block=} is referenced by nobody"
            if left:
                continue
            if block in hash_of:
                idle[block] = None
                if block in self._pinned:
                    self._pinned_at_rest += 1
                if watcher:
                    watcher(block, hash_of[block])
            else:
                self._vacate(block)

    def pin(self, blocks: Iterable[BlockId]) -> None:
        """Evict none of these, which rest, until `unpin`: somebody reads them. They keep their turn, and may be shared."""
        for block in blocks:
            assert block in self._hash_of, f"{block=} is not cached"
            assert self._references[block] == 0, f"{block=} does not rest"
            self._pinned.add(block)
            self._pinned_at_rest += 1

    def unpin(self, blocks: Iterable[BlockId]) -> None:
        """Undo `pin`."""
        for block in blocks:
            self._pinned.remove(block)
            self._pinned_at_rest -= self._references[block] == 0

    def register(self, block: BlockId, name: BlockHash) -> None:
        """A referenced block's content is final and may be found under `name`, unless another block already is."""
        assert self._references[block] > 0, f"{block=} is referenced by nobody"
        if name not in self._cached and block not in self._hash_of:
            self._cached[name] = block
            self._hash_of[block] = name

    def retain(self, name: str, blocks: Iterable[BlockId], ttl_s: float) -> None:
        """Evict these cached blocks, the first ones of a table, after all others for `ttl_s` from the time last told.

        A retention of the same name ends; what the bound leaves no room for is not retained.
        """
        self.dismiss(name)
        covered = self._retentions.add(name, blocks, self._now_s + ttl_s)
        assert all(block in self._hash_of for block in covered), f"{covered=} cannot be found"

    def dismiss(self, name: str) -> None:
        """End a retention, if there is one. What was spared for it alone is evicted next, later ones of the table first."""
        for block in self._retentions.remove(name):
            if block in self._spared:
                self._spared.remove(block)
                self._idle[block] = None
                self._idle.move_to_end(block, last=False)

    def expire(self, now_s: float) -> None:
        """It is `now_s`: retentions that have lasted as long as they should are over."""
        self._now_s = now_s
        for name in self._retentions.expired(now_s):
            self.dismiss(name)

    def quarantine(self, blocks: Iterable[BlockId]) -> None:
        """Take blocks with a single reference out of circulation until `unquarantine`; the reference is gone."""
        for block in blocks:
            assert self._references[block] == 1, f"{block=} has {self._references[block]} owners"
            assert block not in self._hash_of, f"{block=} is cached: its content was verified"
            self._references[block] = 0
            self._quarantined.add(block)

    def unquarantine(self, blocks: Iterable[BlockId]) -> None:
        """Nothing writes into these blocks any more. Blocks that are not in quarantine are ignored."""
        for block in blocks:
            if block in self._quarantined:
                self._quarantined.remove(block)
                self._vacate(block)

    def check_integrity(self, references: Mapping[BlockId, int]) -> None:
        """Every block is in exactly one place, the sums are right, and so are the counts: `references` is the truth."""
        counted = {BlockId(b): n for b, n in enumerate(self._references) if n}
        assert counted == dict(references), f"references are {counted}, should be {references}"
        assert self._vacancies == self._vacant.count(1), "vacancies miscounted"
        for block in map(BlockId, range(self.blocks)):
            places = (
                bool(self._vacant[block]),
                self._references[block] > 0,
                block in self._idle,
                block in self._spared,
                block in self._quarantined,
            )
            assert sum(places) == 1, f"{block=} is in {places=}"
            assert block not in self._spared or block in self._retentions, (
                f"{block=} is not retained"
            )
            assert block not in self._retentions or block in self._hash_of, (
                f"{block=} is not cached"
            )
        assert set(self._idle) <= set(self._hash_of), "an idle block must be findable"
        assert self._pinned <= set(self._hash_of), "a pinned block must be findable"
        at_rest = sum(self._references[block] == 0 for block in self._pinned)
        assert at_rest == self._pinned_at_rest, f"{at_rest} at rest, not {self._pinned_at_rest}"
        self._retentions.check_integrity()
        assert {block: name for name, block in self._cached.items()} == self._hash_of
        assert not any(self._vacant[block] for block in self._hash_of), "a vacant block is cached"

    def _choose(self, count: int, after: BlockId | None) -> list[BlockId]:
        """Vacant blocks: the run behind `after`, else the shortest run that is long enough, else the longest runs."""
        if count <= 1:
            return self._choose_one(after) if count else []
        vacant = self._vacant_array.nonzero()[0]
        if count == len(vacant):
            return [BlockId(block) for block in vacant.tolist()]
        breaks = (vacant[1:] - vacant[:-1] != 1).nonzero()[0] + 1
        bounds = np.concatenate(([0], breaks, [len(vacant)]))
        starts, lengths = bounds[:-1], bounds[1:] - bounds[:-1]
        fits = (lengths >= count).nonzero()[0]
        if len(fits):
            start = starts[fits[lengths[fits].argmin()]]
            return [BlockId(block) for block in vacant[start : start + count].tolist()]
        chosen: list[int] = []
        for run in np.argsort(-lengths, kind="stable"):
            start, length = starts[run], min(int(lengths[run]), count - len(chosen))
            chosen.extend(vacant[start : start + length].tolist())
            if len(chosen) == count:
                break
        return [BlockId(block) for block in sorted(chosen)]

    def _choose_one(self, after: BlockId | None) -> list[BlockId]:
        """The next block of the run, else the first vacant one: that fills small holes and spares long runs."""
        if after is not None and after + 1 < self.blocks and self._vacant[after + 1]:
            return [BlockId(after + 1)]
        return [BlockId(self._vacant.index(1))]

    def _next_victim(self) -> BlockId:
        """The idle block to be evicted; when all are retained, the retention that would end first ends now."""
        while True:
            while (
                block := next((b for b in self._idle if b not in self._pinned), None)
            ) is not None:
                if block not in self._retentions:
                    return block
                del self._idle[block]
                self._spared.add(block)
            self.dismiss(self._retentions.oldest())

    def _evict(self, count: int) -> None:
        """Give up what so many victims have cached."""
        cached, hash_of, vacant = self._cached, self._hash_of, self._vacant
        for block in self._victims(count):
            del cached[hash_of.pop(block)]
            vacant[block] = True
        self._vacancies += count

    def _victims(self, count: int) -> Iterator[BlockId]:
        """So many blocks, which are not idle any more."""
        idle = self._idle
        if len(self._retentions):
            for _ in range(count):
                block = self._next_victim()
                del idle[block]
                yield block
        elif self._pinned_at_rest:
            for block in list(islice((b for b in idle if b not in self._pinned), count)):
                del idle[block]
                yield block
        else:
            for _ in range(count):
                yield idle.popitem(last=False)[0]

    def _vacate(self, block: BlockId) -> None:
        self._vacant[block] = True
        self._vacancies += 1
