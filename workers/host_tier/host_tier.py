"""Decides which blocks are saved to host memory and when, and which come back for whom. Pure: copies are its orders.

What is being saved is pinned in the block pool, and keeps its turn to be evicted. What is fetched has a reference of the tier's
until it has come; then it is registered, and found like anything else in the prefix cache.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tercet.ids import BlockHash, BlockId
from tercet.wire import TierFigures
from tercet.workers.block_pool import BlockPool
from tercet.workers.host_tier.copies import Copies, Direction
from tercet.workers.host_tier.host_pool import HostBlock, HostPool
from tercet.workers.sequence import Sequence as Request

FETCH_TOKENS_MIN = 64
"""What is fetched comes a step later, in which at least so many tokens can be computed."""
SAVES_MAX = 64
"""Blocks on their way to the host at once: 128 MiB of a model of 8 billion parameters, 3 ms."""


@dataclass(frozen=True, slots=True)
class Save:
    """Blocks that may be evicted once they are saved."""

    blocks: list[BlockId]
    names: list[BlockHash]


@dataclass(frozen=True, slots=True)
class Fetch:
    """`blocks` get the content of `names` for a request; it needs those that are `held` too."""

    request: Request
    blocks: list[BlockId]
    names: list[BlockHash]
    held: list[BlockId]


class HostTier:
    """See `Tier`. Watches `pool`.

    Saved is what could be evicted next: the blocks that can be given away without a loss, vacant ones and saved ones, are kept
    at half the host pool, so the other half is left for what the device has evicted. With a host pool of twice the
    device's all that rests is saved at once.
    """

    def __init__(self, pool: BlockPool, blocks: int, block_tokens: int, block_bytes: int) -> None:
        self._pool, self._host = pool, HostPool(blocks)
        self._block_tokens, self._block_bytes = block_tokens, block_bytes
        self._fetch_blocks_min = -(-FETCH_TOKENS_MIN // block_tokens)
        self._spare_min = max(1, blocks // 2)
        self._unsaved: OrderedDict[BlockId, BlockHash] = OrderedDict()
        """In the order in which they came to rest. May have been taken, or given away, since."""
        self._under_way: dict[int, Save | Fetch] = {}
        self._orders: list[Copies] = []
        self._number = 0
        self._saving = 0
        self._saved_blocks = self._fetched_blocks = 0
        self._device_hit_tokens = self._host_hit_tokens = 0
        pool.watch(self._rests)

    @property
    def blocks(self) -> int:
        return self._host.blocks

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    # ---- what a request finds ----------------------------------------------------------------------------------------

    def reach(self, names: Sequence[BlockHash], cached: int) -> int:
        """See `Tier`."""
        return cached + len(self._behind(names, cached))

    def lacks(self, names: Sequence[BlockHash], cached: int) -> int:
        """See `Tier`."""
        lacking = sum([block is None for block in self._behind(names, cached)])
        return lacking if lacking >= self._fetch_blocks_min else 0

    def fetch(self, request: Request, names: Sequence[BlockHash], cached: int) -> None:
        """See `Tier`."""
        found = [*self._pool.lookup(names[:cached]), *self._behind(names, cached)]
        held = [block for block in found if block is not None]
        wanted = [name for name, block in zip(names, found, strict=False) if block is None]
        self._pool.share(held)
        blocks = self._pool.allocate(len(wanted), after=found[cached - 1] if cached else None)
        assert blocks is not None, f"{self._pool.free} blocks are free, not {len(wanted)}"
        request.fetching = True
        slots = self._host.lend(wanted)
        self._order(Direction.FETCH, blocks, slots, Fetch(request, blocks, wanted, held))

    def took(self, request: Request, cached: int) -> None:
        """See `Tier`."""
        tokens = cached * self._block_tokens
        fetched = min(request.fetched_tokens, tokens)
        self._host_hit_tokens += fetched
        self._device_hit_tokens += tokens - fetched
        request.fetched_tokens = 0

    def _behind(self, names: Sequence[BlockHash], cached: int) -> list[BlockId | None]:
        """Of the blocks behind the first `cached`, up to one that has to be computed: where the device has it, if it does."""
        behind: list[BlockId | None] = []
        for name in names[cached:]:
            block = self._pool.find(name)
            if block is None and not self._host.findable(name):
                break
            behind.append(block)
        return behind

    # ---- orders ------------------------------------------------------------------------------------------------------

    def orders(self) -> list[Copies]:
        """See `Tier`; what rests and is to be saved by now is among them."""
        if self._unsaved:
            self._save()
        orders, self._orders = self._orders, []
        return orders

    def landed(self, numbers: Iterable[int]) -> None:
        """See `Tier`."""
        for number in numbers:
            order = self._under_way.pop(number)
            if isinstance(order, Save):
                self._host.arrived(order.names)
                self._saving -= len(order.blocks)
                self._saved_blocks += len(order.blocks)
                self._pool.unpin(order.blocks)
            else:
                self._host.give_back(order.names)
                self._fetched_blocks += len(order.blocks)
                for block, name in zip(order.blocks, order.names, strict=True):
                    self._pool.register(block, name)
                self._pool.release([*order.held, *order.blocks])
                order.request.fetching = False
                order.request.fetched_tokens = len(order.blocks) * self._block_tokens

    def _rests(self, block: BlockId, name: BlockHash) -> None:
        """The pool may evict it from now on."""
        if name in self._host:
            self._host.touch(name)
            self._unsaved.pop(block, None)
        else:
            self._unsaved[block] = name
            self._unsaved.move_to_end(block)

    def _save(self) -> None:
        """Order as many copies as may be under way; half of what can be given away stays so, saved or not."""
        chosen: dict[BlockHash, BlockId] = {}
        pool, unsaved = self._pool, self._unsaved
        most = min(SAVES_MAX, (pool.free + self._saving) // 2) - self._saving
        most = min(most, self._host.room)
        while unsaved and len(chosen) < most and pool.free - len(unsaved) < self._spare_min:
            block, name = unsaved.popitem(last=False)
            if pool.rests(block, name) and name not in self._host:
                chosen[name] = block
        if not chosen:
            return
        # Neighbours on the device become neighbours on the host: few copies.
        names = sorted(chosen, key=chosen.__getitem__)
        blocks = [chosen[name] for name in names]
        pool.pin(blocks)
        self._saving += len(blocks)
        self._order(Direction.SAVE, blocks, self._host.expect(names), Save(blocks, names))

    def _order(
        self,
        direction: Direction,
        blocks: Sequence[BlockId],
        slots: Sequence[HostBlock],
        order: Save | Fetch,
    ) -> None:
        self._number += 1
        self._under_way[self._number] = order
        self._orders.append(Copies(self._number, direction, tuple(blocks), tuple(slots)))

    # ---- figures -----------------------------------------------------------------------------------------------------

    def figures(self) -> TierFigures:
        """See `Tier`."""
        return TierFigures(
            blocks=self._host.blocks,
            blocks_used=self._host.used,
            saved_blocks=self._saved_blocks,
            saved_bytes=self._saved_blocks * self._block_bytes,
            fetched_blocks=self._fetched_blocks,
            fetched_bytes=self._fetched_blocks * self._block_bytes,
            device_hit_tokens=self._device_hit_tokens,
            host_hit_tokens=self._host_hit_tokens,
        )

    def references(self) -> Mapping[BlockId, int]:
        """See `Tier`."""
        references: Counter[BlockId] = Counter()
        for order in self._under_way.values():
            if isinstance(order, Fetch):
                references.update([*order.blocks, *order.held])
        return references

    def check_integrity(self) -> None:
        """Asserts that the books of the host pool and of the orders agree."""
        arriving: list[BlockHash] = []
        readers: Counter[BlockHash] = Counter()
        for order in self._under_way.values():
            if isinstance(order, Save):
                arriving += order.names
            else:
                readers.update(order.names)
                assert order.request.fetching, f"{order.request.id} waits for nothing"
        assert self._saving == len(arriving), f"{self._saving=} {arriving=}"
        assert self._saving <= SAVES_MAX, self._saving
        self._host.check_integrity(arriving, readers)
