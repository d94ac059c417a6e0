"""The blocks of one request on their way here: which are wanted, offered, and here. Knows no messages and no time."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import Ready
from tercet.workers.transfer.base import JobId, PullJob


class Offer(NamedTuple):
    """A block of the source that holds final KV, as long as its generation word is this one."""

    block: BlockId
    generation: int


@dataclass(slots=True)
class Intake:
    """Block numbers count from the request's first block:

    0 ......... held_blocks ......... here_blocks ......... held_blocks + len(offers) ......... len(blocks)
    from our prefix cache   pulled and checked     offered, to be pulled               not yet published
    """

    block_tokens: int
    blocks: tuple[BlockId, ...] = ()
    """Ours, covering every token whose KV is to come."""
    held_blocks: int = 0
    here_blocks: int = 0
    offers: list[Offer] = field(default_factory=list)
    offered_tokens: int = 0
    jobs: int = 0

    @property
    def here_tokens(self) -> int:
        """Tokens whose KV is here. A last, partial block counts as far as the source has filled it."""
        offered = min(self.offered_tokens, self.here_blocks * self.block_tokens)
        return max(self.held_tokens, offered)

    @property
    def held_tokens(self) -> int:
        return self.held_blocks * self.block_tokens

    def reserve(self, blocks: tuple[BlockId, ...], held_blocks: int) -> None:
        """The engine's answer: the first `held_blocks` need no pull."""
        self.blocks, self.held_blocks, self.here_blocks = blocks, held_blocks, held_blocks

    def offer(self, ready: Ready) -> str:
        """Take note of what may be pulled; returns what is wrong with it, or nothing.

        The source may offer a block anew: it was preempted and has computed it again, elsewhere.
        """
        start = ready.first - self.held_blocks
        if not 0 <= start <= len(self.offers) or len(ready.blocks) != len(ready.generations):
            return f"the source offers block {ready.first} out of order"
        if ready.first + len(ready.blocks) > len(self.blocks):
            return "the source offers more blocks than the request has"
        pairs = zip(ready.blocks, ready.generations, strict=True)
        self.offers[start : start + len(ready.blocks)] = [Offer(*pair) for pair in pairs]
        self.offered_tokens = max(self.offered_tokens, ready.tokens)
        return ""

    def next_job(self, request: RequestId, epoch: Epoch, peer: str) -> PullJob | None:
        """Everything that is offered and not here, in one pull; None when there is nothing."""
        wanted = self.offers[self.here_blocks - self.held_blocks :]
        if not wanted:
            return None
        self.jobs += 1
        return PullJob(
            JobId(request, epoch, self.jobs),
            peer,
            remote_blocks=tuple(offer.block for offer in wanted),
            local_blocks=self.blocks[self.here_blocks : self.here_blocks + len(wanted)],
            generations=tuple(offer.generation for offer in wanted),
        )

    def admit(self, job: PullJob) -> None:
        """The pull of `job` was checked: its blocks are here."""
        self.here_blocks += len(job.local_blocks)
