"""The blocks of one request on their way here: which are wanted, offered, and here. Knows no messages and no time."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import Ready
from tercet.workers.transfer.base import JobId, PullJob
from tercet.workers.transfer.codec_choice import Codec


class Slot(NamedTuple):
    """Where an offered block lies packed as well, as long as that word is this one."""

    slot: BlockId
    generation: int
    pack_s: float
    """What packing it took."""


@dataclass(slots=True)
class Intake:
    """Block numbers count from the request's first block:

    0 ......... held_blocks ......... here_blocks ......... held_blocks + len(offers) ......... len(blocks)
    from our prefix cache   pulled and checked     offered, to be pulled               not yet published

    A request that grows while it moves may be offered beyond `len(blocks)`; then more are asked for.
    """

    block_tokens: int
    tokens_max: int
    """The longest that the request can become."""
    grows: bool = False
    codec: Codec = Codec.NONE
    """What the source was asked for; it may offer blocks packed, or not."""
    packed_blocks_max: int = 1
    """In one pull."""
    blocks: tuple[BlockId, ...] = ()
    """Ours, covering every token whose KV is to come."""
    held_blocks: int = 0
    here_blocks: int = 0
    offers: list[BlockId] = field(default_factory=list)
    """Blocks of the source that hold final KV, each as long as its generation word is the one below."""
    generations: list[int] = field(default_factory=list)
    slots: dict[int, Slot] = field(default_factory=dict)
    """Of offers that lie packed as well, by their place in `offers`; only where a codec was asked for."""
    offered_tokens: int = 0
    jobs: int = 0
    rounds: int = 0
    """Times that a pull began of what had been published since the one before."""
    round_blocks: int = 0
    """How many were published when the last one began."""
    extending: bool = False
    """More blocks were asked for and have not been answered."""

    @property
    def here_tokens(self) -> int:
        """Tokens whose KV is here. A last, partial block counts as far as the source has filled it."""
        offered = min(self.offered_tokens, self.here_blocks * self.block_tokens)
        return max(self.held_tokens, offered)

    @property
    def held_tokens(self) -> int:
        return self.held_blocks * self.block_tokens

    @property
    def wanted_blocks(self) -> int:
        """Offered and not here."""
        return max(0, self.held_blocks + len(self.offers) - self.here_blocks)

    @property
    def published_blocks(self) -> int:
        """On the source, whether they have been offered yet or are being packed."""
        return -(-self.offered_tokens // self.block_tokens)

    def reserve(self, blocks: tuple[BlockId, ...], held_blocks: int) -> None:
        """The engine's answer: the first `held_blocks` need no pull."""
        self.blocks, self.held_blocks, self.here_blocks = blocks, held_blocks, held_blocks

    def extend(self, blocks: tuple[BlockId, ...]) -> None:
        """The engine's answer to `room`."""
        self.extending = False
        self.blocks += blocks

    def room(self, spare_blocks: int) -> int:
        """For how many tokens blocks should be asked, so that so many are to spare; 0 while half of them are."""
        offered = self.held_blocks + len(self.offers)
        wanted = min(offered + spare_blocks, -(-self.tokens_max // self.block_tokens))
        enough = min(wanted, offered + spare_blocks // 2)
        if not self.grows or self.extending or enough <= len(self.blocks):
            return 0
        self.extending = True
        return wanted * self.block_tokens

    def offer(self, ready: Ready) -> str:
        """Take note of what may be pulled; returns what is wrong with it, or nothing.

        The source may offer a block anew: it was preempted and has computed it again, elsewhere.
        """
        start = ready.first - self.held_blocks
        if not 0 <= start <= len(self.offers) or len(ready.blocks) != len(ready.generations):
            return f"the source offers block {ready.first} out of order"
        blocks_max = -(-self.tokens_max // self.block_tokens) if self.grows else len(self.blocks)
        if ready.first + len(ready.blocks) > blocks_max:
            return "the source offers more blocks than the request has"
        if self.codec is not Codec.NONE and not self._stage(start, ready):
            return "the source offers other slots than blocks"
        self.offers[start : start + len(ready.blocks)] = ready.blocks
        self.generations[start : start + len(ready.blocks)] = ready.generations
        self.offered_tokens = max(self.offered_tokens, ready.tokens)
        return ""

    def next_job(self, request: RequestId, epoch: Epoch, peer: str) -> PullJob | None:
        """Everything that is offered and not here, in one pull; None when there is nothing or no block for it.

        What lies packed and what does not is pulled separately.
        """
        local = self.blocks[self.here_blocks : self.here_blocks + self.wanted_blocks]
        if not local:
            return None
        if self.here_blocks >= self.round_blocks:
            self.rounds += 1
            self.round_blocks = self.published_blocks
        first = self.here_blocks - self.held_blocks
        self.jobs += 1
        if self.slots:
            local = local[: self._alike(first, len(local))]
            if first in self.slots:
                return self._packed_job(JobId(request, epoch, self.jobs), peer, local)
        wanted = slice(first, first + len(local))
        return PullJob(
            JobId(request, epoch, self.jobs),
            peer,
            remote_blocks=tuple(self.offers[wanted]),
            local_blocks=local,
            generations=tuple(self.generations[wanted]),
        )

    def admit(self, job: PullJob) -> None:
        """The pull of `job` was checked: its blocks are here."""
        if job.codec is not Codec.NONE:
            self.make_plain(job)
        self.here_blocks += len(job.local_blocks)

    def make_plain(self, job: PullJob) -> None:
        """The packed pull `job` is over: its slots are of no use any more."""
        for place in self._places(job):
            self.slots.pop(place, None)

    def pack_s(self, job: PullJob) -> float:
        """What packing the blocks of `job` took, which must not be over."""
        slots = (self.slots.get(place) for place in self._places(job))
        return sum(slot.pack_s for slot in slots if slot is not None)

    def _places(self, job: PullJob) -> range:
        """In `offers`, of a job that was not admitted."""
        first = self.here_blocks - self.held_blocks
        return range(first, first + len(job.local_blocks))

    def _stage(self, start: int, ready: Ready) -> bool:
        """Take note of where these offers lie packed, if they do; False when that makes no sense."""
        for place in range(start, start + len(ready.blocks)):
            self.slots.pop(place, None)
        if not ready.slots:
            return not ready.slot_generations
        if not len(ready.blocks) == len(ready.slots) == len(ready.slot_generations):
            return False
        each_s = ready.pack_s / len(ready.slots)
        pairs = zip(ready.slots, ready.slot_generations, strict=True)
        self.slots.update(
            (place, Slot(slot, word, each_s)) for place, (slot, word) in enumerate(pairs, start)
        )
        return True

    def _alike(self, first: int, count: int) -> int:
        """How many of so many offers lie packed, or do not, as the first does."""
        packed = first in self.slots
        count = min(count, self.packed_blocks_max) if packed else count
        alike = (i for i in range(1, count) if ((first + i) in self.slots) is not packed)
        return next(alike, count)

    def _packed_job(self, job: JobId, peer: str, local: tuple[BlockId, ...]) -> PullJob:
        first = self.here_blocks - self.held_blocks
        wanted = [self.slots[place] for place in range(first, first + len(local))]
        return PullJob(
            job,
            peer,
            remote_blocks=tuple(slot.slot for slot in wanted),
            local_blocks=local,
            generations=tuple(slot.generation for slot in wanted),
            codec=self.codec,
        )
