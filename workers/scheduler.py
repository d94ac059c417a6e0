"""Which sequences take part in the next step, with how many tokens, and whose blocks must go when memory is short.

Owns the queues and, through the block pool, the block tables. Knows no model, message or time.
"""

from bisect import insort
from collections import deque
from collections.abc import Iterable
from operator import attrgetter

from tercet.config import EngineConfig
from tercet.ids import BlockHash, BlockId
from tercet.workers.admission import ADMISSIONS
from tercet.workers.batch import Batch, Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.host_tier.tier import NoTier, Tier
from tercet.workers.sequence import Phase, Sequence

SHORT_CHUNK_TOKENS = 512
"""A chunk of at most so many tokens joins a step whatever is in it: a step of its own would read the weights once more."""

FETCHING_MAX = 4
"""Requests whose KV is fetched at once: one after the other is as fast, but for the time between two of them."""

_rank, _urgency = attrgetter("rank"), attrgetter("urgency")


class Scheduler:
    """Continuous batching with chunked prefill, the one first that has the least slack.

    A request is due when a multiple of its own prefill has been done for others, so that short ones pass long ones and the
    wait of each is bounded by its own length: nobody who comes later than that passes it. A promise in seconds that is the
    same for all would not change the order. Whoever has output already, and a client that reads it, is due at once.

    A sequence gets the blocks for all its tokens when it leaves the queue, in one piece, so that prefill never stops for
    memory and a hand-off reads few runs; only decoding asks for more. When there are none, the running sequence of the
    lowest rank gives up its blocks and later computes again what the prefix cache and the tier behind it have lost by then.
    Who is to leave the queue and lacks KV that the tier has waits for it, and is passed meanwhile.
    """

    def __init__(self, config: EngineConfig, pool: BlockPool, tier: Tier | None = None) -> None:
        self.pool = pool
        self.tier: Tier = tier or NoTier()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.reserved: set[Sequence] = set()
        self.held: set[Sequence] = set()
        self._admission = ADMISSIONS[config.admission](pool, config.block_tokens)
        self._block_tokens = config.block_tokens
        self._step_tokens_max = config.step_tokens_max
        self._waiting_max = config.waiting_max
        self._stretch_max = config.prefill_stretch_max
        self._retention_s_max = config.retention_s_max
        # Every decode of the batch must fit into a step, or the last ones would never move.
        self._running_max = min(config.running_max, config.step_tokens_max)
        self._short_of_blocks = False
        self._prefilled = 0

    # ---- the step ----------------------------------------------------------------------------------------------------

    def schedule(self) -> Batch:
        """Decodes first, then prefills under way and the queue by urgency, until tokens, places or blocks run out.

        While a step is under way nobody gives way to anybody: where somebody must, the batch is empty.
        """
        return self._fill(self.running, self._step_tokens_max)

    def _fill(self, running: list[Sequence], budget: int) -> Batch:
        """So many tokens of these running sequences and of the queue."""
        batch = Batch()
        self._short_of_blocks = False
        if not (running or self.waiting):
            return batch
        remaining = [(s, s.remaining) for s in running]
        prefilling = [s for s, tokens in remaining if tokens > 1]
        for sequence in [s for s, tokens in remaining if tokens == 1]:
            if sequence.phase is Phase.RUNNING and budget and self._grow(sequence, batch):
                batch.chunks.append(Chunk(sequence, 1))
                budget -= 1
            elif batch.premature:
                return Batch()
        self._prefill(deque(sorted(prefilling, key=_urgency)), batch, budget)
        return Batch() if batch.premature else batch

    def _prefill(self, under_way: deque[Sequence], batch: Batch, budget: int) -> None:
        """Prefills under way and the queue by urgency, up to one that is longer than all before: they end when the step does."""
        so_far = 0
        while budget and (sequence := self._most_urgent(under_way)):
            waits = sequence.phase is Phase.WAITING
            expected = sequence.remaining - (sequence.hoped_tokens if waits else 0)
            if so_far and min(expected, budget) > max(so_far, SHORT_CHUNK_TOKENS):
                break
            if waits:
                if self._fetch(sequence):
                    continue
                if not self._admit(sequence):
                    self._short_of_blocks = True
                    continue
                batch.begun.append(sequence)
            else:
                under_way.popleft()
                if not self._grow(sequence, batch):
                    continue
            chunk = Chunk(sequence, min(sequence.remaining, budget))
            batch.chunks.append(chunk)
            budget -= chunk.tokens
            so_far += chunk.tokens
        self._prefilled += so_far

    def _most_urgent(self, under_way: deque[Sequence]) -> Sequence | None:
        """Of those under way, and the first in the queue if it may come; who gave way meanwhile is in the queue."""
        while under_way and under_way[0].phase is not Phase.RUNNING:
            under_way.popleft()
        comes = self.waiting and not self._short_of_blocks and self._has_place
        first = self._first if comes else None
        if first and not (under_way and under_way[0].urgency < first.urgency):
            return first
        return under_way[0] if under_way else None

    @property
    def _first(self) -> Sequence | None:
        """The first in the queue whose KV is not being fetched, if few before it wait for that."""
        return next((s for s in self.waiting[: FETCHING_MAX + 1] if not s.fetching), None)

    def interject(self, before: Sequence, tokens: int) -> Batch:
        """Those in the queue that are more urgent than `before` and have at most so many tokens. Takes blocks from nobody."""
        batch = Batch()
        while (sequence := self._first) and self._has_place:
            short = sequence.remaining - sequence.hoped_tokens <= tokens
            if not (short and sequence.urgency < before.urgency):
                break
            if self._fetch(sequence):
                continue
            if not self._admit(sequence):
                break
            chunk = Chunk(sequence, min(sequence.remaining, tokens))
            batch.chunks.append(chunk)
            batch.begun.append(sequence)
            tokens -= chunk.tokens
            self._prefilled += chunk.tokens
        return batch

    def advance(self, sequence: Sequence, computed: int) -> None:
        """The KV of the first `computed` tokens is in the blocks; full ones become findable."""
        sequence.computed = computed
        full = computed // self._block_tokens
        if full > sequence.registered_blocks:
            hashes = sequence.block_hashes(self._block_tokens)
            for i in range(sequence.registered_blocks, full):
                self.pool.register(sequence.blocks[i], hashes[i])
            sequence.registered_blocks = full

    # ---- changes of phase --------------------------------------------------------------------------------------------

    def enqueue(self, sequence: Sequence) -> str | None:
        """Wait for a place; returns why not."""
        if len(self.waiting) >= self._waiting_max:
            return f"{self._waiting_max} requests are waiting already"
        self._queue(sequence)
        return None

    def reserve(self, sequence: Sequence, *, more_to_come: bool = True) -> str | None:
        """Blocks for KV that will be pulled, cached ones first; returns why not. Never preempts, never overtakes.

        Unless there is a token `more_to_come`, the last one's KV must not be cached: it is computed for its logits.
        """
        if not self._has_place:
            return f"all {self._running_max} places of the batch are taken"
        if self._short_of_blocks:
            return "requests that came earlier wait for KV blocks"
        cached_tokens_max = len(sequence.tokens) - (not more_to_come)
        if not self._take_blocks(sequence, cached_tokens_max // self._block_tokens):
            return f"{self.pool.free} KV blocks are free, too few beside the running requests"
        sequence.phase = Phase.RESERVED
        self.reserved.add(sequence)
        return None

    def extend(self, sequence: Sequence, tokens: int) -> list[BlockId]:
        """Blocks for a reserved sequence that will be so long; none when there are too few beside the running ones."""
        missing = -(-tokens // self._block_tokens) - len(sequence.blocks)
        if missing <= 0 or missing + len(self._growing) > self.pool.free:
            return []
        fresh = self.pool.allocate(missing, after=sequence.blocks[-1]) or []
        sequence.blocks.extend(fresh)
        return fresh

    def start(self, sequence: Sequence) -> None:
        """A reserved sequence has its KV and joins the batch."""
        self.reserved.remove(sequence)
        sequence.phase = Phase.RUNNING
        insort(self.running, sequence, key=_rank)

    def requeue(self, sequence: Sequence, quarantine: Iterable[BlockId]) -> None:
        """A reserved sequence is not going to get its KV: it waits like any other and finds what did arrive in the cache."""
        self.reserved.remove(sequence)
        self._free_blocks(sequence, quarantine)
        self._queue(sequence)

    def hold(self, sequence: Sequence) -> None:
        """A running sequence keeps its blocks and leaves the batch; a waiting one has none."""
        (self.running if sequence.phase is Phase.RUNNING else self.waiting).remove(sequence)
        sequence.phase = Phase.HELD
        self.held.add(sequence)

    def thaw(self, sequence: Sequence) -> None:
        """A held sequence runs on, or waits again."""
        self.held.remove(sequence)
        if sequence.blocks:
            sequence.phase = Phase.RUNNING
            insort(self.running, sequence, key=_rank)
        else:
            self._queue(sequence)

    def remove(self, sequence: Sequence, quarantine: Iterable[BlockId] = ()) -> None:
        """Forget a sequence, whatever its phase. Its KV is retained if it is wanted again, and until then findable."""
        match sequence.phase:
            case Phase.WAITING:
                self.waiting.remove(sequence)
            case Phase.RUNNING:
                self.running.remove(sequence)
                self._admission.ended(sequence)
            case Phase.RESERVED:
                self.reserved.remove(sequence)
            case Phase.HELD:
                self.held.remove(sequence)
            case Phase.ENDED:
                raise AssertionError(f"{sequence.id} ended already")
        self._retain(sequence)
        self._free_blocks(sequence, quarantine)
        sequence.phase = Phase.ENDED

    # ---- figures -----------------------------------------------------------------------------------------------------

    def pending_prefill_tokens(self) -> int:
        """Tokens accepted but neither cached nor computed; for the queue, what was cached when they joined it."""
        return self._pending(self.running)

    def _pending(self, running: Iterable[Sequence]) -> int:
        remaining = [s.remaining for s in running]
        prefilling = sum(remaining) - remaining.count(1)
        return prefilling + sum([s.remaining - s.hoped_tokens for s in self.waiting])

    def context_tokens(self) -> int:
        """Sum of the lengths of the running sequences."""
        return sum(len(sequence.tokens) for sequence in self.running)

    def head_tokens(self) -> int:
        """Length of the first in the queue, if it is blocks that it waits for; else 0."""
        return len(self.waiting[0].tokens) if self.waiting and self._short_of_blocks else 0

    def check_integrity(self) -> None:
        """Phases, queues and reference counts agree."""
        groups = (
            (self.waiting, Phase.WAITING),
            (self.running, Phase.RUNNING),
            (self.reserved, Phase.RESERVED),
            (self.held, Phase.HELD),
        )
        references: dict[BlockId, int] = {}
        for sequences, phase in groups:
            for sequence in sequences:
                assert sequence.phase is phase, f"{sequence.id}: {sequence.phase} among {phase}"
                assert sequence.computed <= len(sequence.blocks) * self._block_tokens
                assert sequence.blocks or phase in (Phase.WAITING, Phase.HELD), (
                    f"{sequence.id} lacks blocks"
                )
                for block in sequence.blocks:
                    references[block] = references.get(block, 0) + 1
        assert self.running == sorted(self.running, key=_rank)
        assert self.waiting == sorted(self.waiting, key=_urgency)
        for block, held in self.tier.references().items():
            references[block] = references.get(block, 0) + held
        self.pool.check_integrity(references)
        self.tier.check_integrity()

    # ---- blocks ------------------------------------------------------------------------------------------------------

    @property
    def _has_place(self) -> bool:
        may_come_back = sum(not s.hand_off for s in self.held)
        return len(self.running) + len(self.reserved) + may_come_back < self._running_max

    @property
    def _growing(self) -> list[Sequence]:
        """Sequences that will want another block."""
        return [*self.reserved, *[s for s in self.running if not s.hand_off]]

    def _names(self, sequence: Sequence, tokens: int) -> list[BlockHash]:
        """The hashes of the full blocks of the first tokens of a sequence, `tokens` at most."""
        return sequence.block_hashes(self._block_tokens)[: tokens // self._block_tokens]

    def _fetch(self, sequence: Sequence) -> bool:
        """Whether it waits for KV to be fetched, from now on; only if it could be admitted then."""
        if not self.tier.blocks:
            return False
        names = self._names(sequence, len(sequence.tokens) - 1)
        cached = self.pool.lookup(names)
        if not self.tier.lacks(names, len(cached)):
            return False
        self.pool.share(cached)
        missing = self._blocks_for(sequence) - len(cached)
        admitted = self._admission.admits(sequence, missing, self._growing)
        self.pool.release(cached)
        if admitted:
            self.tier.fetch(sequence, names, len(cached))
        return admitted

    def _admit(self, sequence: Sequence) -> bool:
        """Move a waiting sequence into the batch. Its last token is computed even if it is cached: logits are wanted."""
        if not self._take_blocks(sequence, (len(sequence.tokens) - 1) // self._block_tokens):
            return False
        self.waiting.remove(sequence)
        sequence.phase = Phase.RUNNING
        insort(self.running, sequence, key=_rank)
        return True

    def _take_blocks(self, sequence: Sequence, cached_blocks_max: int) -> bool:
        """A table for all tokens, cached blocks, then fresh ones, if that leaves enough for those that will grow."""
        cached = self.pool.lookup(self._names(sequence, cached_blocks_max * self._block_tokens))
        self.pool.share(cached)
        missing = self._blocks_for(sequence) - len(cached)
        fresh = None
        if self._admission.admits(sequence, missing, self._growing):
            fresh = self.pool.allocate(missing, after=cached[-1] if cached else None)
        if fresh is None:
            self.pool.release(cached)
            return False
        self.pool.dismiss(sequence.retention)  # the turn that was waited for is here
        self.tier.took(sequence, len(cached))
        sequence.blocks = cached + fresh
        sequence.computed = len(cached) * self._block_tokens
        sequence.registered_blocks = len(cached)
        if sequence.cached_tokens is None:
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_tokens)
        return True

    def _grow(self, sequence: Sequence, batch: Batch) -> bool:
        """Blocks for all tokens of a running sequence, at the cost of others if need be; False if it cannot run now."""
        needed = self._blocks_for(sequence)
        if needed > self.pool.blocks:
            batch.premature = self._under_way
            if not batch.premature:
                batch.stuck.append(sequence)
            return False
        while (missing := needed - len(sequence.blocks)) > 0:
            fresh = self.pool.allocate(missing, after=sequence.blocks[-1])
            if fresh is not None:
                sequence.blocks.extend(fresh)
                break
            if self._under_way:
                batch.premature = True
                return False
            victim = self._victim(sequence, batch)
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    @property
    def _under_way(self) -> bool:
        """Whether a step is: it may end somebody, who leaves blocks, and writes into those of others."""
        return any(sequence.ahead for sequence in self.running)

    def _victim(self, sequence: Sequence, batch: Batch) -> Sequence:
        """The last in rank that is not in the batch yet. Those whose blocks another worker reads are spared."""
        busy = {chunk.sequence for chunk in batch.chunks}
        for other in reversed(self.running):
            if not other.published and other not in busy and other not in batch.stuck:
                return other
        return sequence

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free_blocks(sequence, ())
        sequence.preemptions += 1
        sequence.due = 0
        self._queue(sequence)

    def _queue(self, sequence: Sequence) -> None:
        sequence.phase = Phase.WAITING
        names = self._names(sequence, len(sequence.tokens) - 1)
        reach = self.tier.reach(names, len(self.pool.lookup(names)))
        sequence.hoped_tokens = reach * self._block_tokens
        if not sequence.due and not sequence.output_tokens:
            own = len(sequence.tokens) - sequence.hoped_tokens
            sequence.due = self._prefilled + int(self._stretch_max * own)
        insort(self.waiting, sequence, key=_urgency)

    def _retain(self, sequence: Sequence) -> None:
        ttl_s = min(sequence.spec.kv_ttl_s, self._retention_s_max)
        if ttl_s > 0:
            full = sequence.registered_blocks
            hashes = sequence.block_hashes(self._block_tokens)[:full]
            self.pool.retain(sequence.retention, self.pool.lookup(hashes), ttl_s)

    def _free_blocks(self, sequence: Sequence, quarantine: Iterable[BlockId]) -> None:
        doubtful = set(quarantine)
        blocks = sequence.forget_blocks()
        if not doubtful:
            self.pool.release(blocks)
            return
        self.pool.quarantine(block for block in blocks if block in doubtful)
        self.pool.release([block for block in blocks if block not in doubtful])

    def _blocks_for(self, sequence: Sequence) -> int:
        return -(-sequence.length // self._block_tokens)
