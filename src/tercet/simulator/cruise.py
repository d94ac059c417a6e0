"""Decoding sequences that need nobody's attention: each gets a token a step, and that is all that happens to it.

An engine spends most of its steps so, and a simulation must not look at every sequence in each of them. Here a step costs
the same however many sequences take part: only the number of steps is kept. A sequence is touched when it is due, which is
when a block is full or its last token drawn; in between its log is short of the tokens that the steps have brought.
"""

import heapq
from collections.abc import Callable, Iterable
from itertools import takewhile

from tercet.config import EngineConfig
from tercet.ids import BlockId
from tercet.simulator.blank import Blank
from tercet.workers.batch import Batch, Chunk
from tercet.workers.block_pool import BlockPool
from tercet.workers.scheduler import Scheduler
from tercet.workers.sequence import Phase, Sequence

Due = tuple[int, tuple[int, int], Sequence]
"""After which step of the cruise, the sequence's rank, and who."""


class Cruise:
    """The sequences, by the difference between their lengths and the steps taken."""

    def __init__(self, block_tokens: int, context_tokens_max: int) -> None:
        self._block_tokens, self._context_tokens_max = block_tokens, context_tokens_max
        self.steps = 0
        """Taken since ever."""
        self.context_tokens = 0
        """Sum of the lengths."""
        self.members: dict[Sequence, int] = {}
        self._due: list[Due] = []
        self._due_at: dict[Sequence, int] = {}
        self._hungry: list[Sequence] = []
        """Who needs a block for its next step."""

    @property
    def steps_to_go(self) -> int:
        """Until somebody is due; there must be somebody."""
        due = self._due
        while self._due_at.get(due[0][2]) != due[0][0]:
            heapq.heappop(due)  # it has left, or left and come again
        return due[0][0] - self.steps

    def join(self, sequence: Sequence) -> None:
        """It decodes from the next step on."""
        length = len(sequence.tokens)
        self.members[sequence] = length - self.steps
        self.context_tokens += length
        self._look_at(sequence)

    def leave(self, sequence: Sequence) -> None:
        """With all its tokens. One that is not here is ignored."""
        if sequence in self.members:
            self.bring_up(sequence)
            self._forget(sequence)

    def take(self, steps: int) -> None:
        """So many steps, at most `steps_to_go`, are over."""
        self.steps += steps
        self.context_tokens += steps * len(self.members)

    def arrived(self) -> list[tuple[Sequence, bool]]:
        """Who is due now, in the order of ranks, and whether it ends: then it has left, all but its last token drawn."""
        arrived = []
        while self._due and self._due[0][0] <= self.steps:
            due, _, sequence = heapq.heappop(self._due)
            if self._due_at.get(sequence) == due:
                ends = self._steps_left(sequence) == self._ahead(sequence)
                self.bring_up(sequence, short=1 if ends else 0)
                if ends:
                    self._forget(sequence)
                arrived.append((sequence, ends))
        return arrived

    def go_on(self, sequence: Sequence) -> None:
        """One that was due and does not end."""
        self._look_at(sequence)

    def feed(self, pool: BlockPool) -> bool:
        """Blocks for all who need one for the next step; False, and none, if there are too few."""
        if not self._hungry:
            return True
        hungry = [sequence for sequence in self._hungry if sequence in self.members]
        if len(hungry) > pool.free:
            return False
        for sequence in hungry:
            fresh = pool.allocate(1, after=sequence.blocks[-1])
            assert fresh is not None, f"{pool.free=} {hungry=}"
            sequence.blocks.extend(fresh)
        self._hungry.clear()
        return True

    def land(self) -> list[Sequence]:
        """All leave."""
        landed = list(self.members)
        for sequence in landed:
            self.leave(sequence)
        self._hungry.clear()
        self._due.clear()
        return landed

    def bring_up(self, sequence: Sequence, short: int = 0) -> None:
        """Give a sequence the tokens of the steps that were taken, or all but `short` of them."""
        sequence.tokens.extend(Blank(self._ahead(sequence) - short))
        sequence.computed = len(sequence.tokens) - 1

    def _ahead(self, sequence: Sequence) -> int:
        """Tokens that its log is short of."""
        return self.members[sequence] + self.steps - len(sequence.tokens)

    def _look_at(self, sequence: Sequence) -> None:
        """When it is due next, and whether it needs a block before; its log is complete."""
        length, block_tokens = len(sequence.tokens), self._block_tokens
        to_boundary = block_tokens - (length - 1) % block_tokens
        due = self.steps + min(to_boundary, self._steps_left(sequence))
        self._due_at[sequence] = due
        heapq.heappush(self._due, (due, sequence.rank, sequence))
        if length > len(sequence.blocks) * block_tokens:
            self._hungry.append(sequence)

    def _steps_left(self, sequence: Sequence) -> int:
        """Until its last token, counted from what its log has."""
        by_request = sequence.spec.sampling.max_tokens - sequence.output_tokens
        return min(by_request, self._context_tokens_max - len(sequence.tokens))

    def _forget(self, sequence: Sequence) -> None:
        self.context_tokens -= self.members.pop(sequence) + self.steps
        del self._due_at[sequence]


class CruiseScheduler(Scheduler):
    """Schedules those who cruise as one, and everybody one by one where blocks are short: then somebody must give way.

    `left` is told of everybody who leaves the batch, `stopped` before that of those who do so with tokens that were drawn and
    not said. Without `cruises` nobody cruises: for comparisons.
    """

    def __init__(
        self,
        config: EngineConfig,
        pool: BlockPool,
        context_tokens_max: int,
        left: Callable[[Sequence], None],
        stopped: Callable[[Sequence], None],
        *,
        cruises: bool = True,
    ) -> None:
        super().__init__(config, pool)
        self.cruise = Cruise(config.block_tokens, context_tokens_max)
        self._left, self._stopped, self._cruises = left, stopped, cruises
        self._fresh: list[Sequence] = []
        self._started: list[Sequence] = []
        self._begun: list[Sequence] = []

    def take_started(self) -> list[Sequence]:
        """Who joined the batch with KV from elsewhere, since the last call."""
        started, self._started = self._started, []
        return started

    def decodes(self, sequence: Sequence) -> None:
        """It has its first token, drawn here or elsewhere, and wants more."""
        if self._cruises:
            self._fresh.append(sequence)

    def in_order(self, cruised: list[Chunk], chunks: list[Chunk]) -> list[Chunk]:
        """What a step has computed, as if all had been scheduled one by one: decodes by rank, then the others."""
        if not (cruised and chunks):
            return cruised or chunks
        decodes = list(takewhile(self._went_on, chunks))
        ranked = sorted(cruised + decodes, key=lambda chunk: chunk.sequence.rank)
        return ranked + chunks[len(decodes) :]

    def schedule(self) -> Batch:
        """Who cruises takes part in every step and is in no chunk."""
        batch = self._schedule()
        self._begun = batch.begun
        return batch

    def _schedule(self) -> Batch:
        cruise, fresh = self.cruise, self._fresh
        self._fresh = []
        for sequence in fresh:
            if sequence.phase is Phase.RUNNING and sequence not in cruise.members:
                cruise.join(sequence)
        if not cruise.feed(self.pool):
            self._fresh = cruise.land()
            batch = super().schedule()
            for sequence in batch.stuck:
                self._stopped(sequence)
            return batch
        return self._fill(self._others, self._step_tokens_max - len(cruise.members))

    def start(self, sequence: Sequence) -> None:
        super().start(sequence)
        self._started.append(sequence)
        self.decodes(sequence)

    def hold(self, sequence: Sequence) -> None:
        super().hold(sequence)
        self._left(sequence)

    def remove(self, sequence: Sequence, quarantine: Iterable[BlockId] = ()) -> None:
        self.cruise.leave(sequence)
        super().remove(sequence, quarantine)
        self._left(sequence)

    def pending_prefill_tokens(self) -> int:
        others = self._others
        return self._pending(others) if others or self.waiting else 0

    def context_tokens(self) -> int:
        others = sum([len(sequence.tokens) for sequence in self._others])
        return self.cruise.context_tokens + others

    def _went_on(self, chunk: Chunk) -> bool:
        """Whether it is the decode of a sequence that was in the batch before."""
        return chunk.sequence.remaining == 1 and chunk.sequence not in self._begun

    @property
    def _others(self) -> list[Sequence]:
        """Who is running and does not cruise."""
        members = self.cruise.members
        if len(members) == len(self.running):
            return []
        return [sequence for sequence in self.running if sequence not in members]

    def _preempt(self, sequence: Sequence) -> None:
        self._stopped(sequence)
        super()._preempt(sequence)
        self._left(sequence)
