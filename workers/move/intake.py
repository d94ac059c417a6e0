"""The blocks of one request on their way here: which are wanted, offered, and here. Knows no messages and no time."""

from dataclasses import dataclass, field

from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import Ready
from tercet.workers.transfer.base import JobId, PullJob


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
    blocks: tuple[BlockId, ...] = ()
    """Ours, covering every token whose KV is to come."""
    held_blocks: int = 0
    here_blocks: int = 0
    offers: list[BlockId] = field(default_factory=list)
    """Blocks of the source that hold final KV, each as long as its generation word is the one below."""
    generations: list[int] = field(default_factory=list)
    offered_tokens: int = 0
    jobs: int = 0
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
        self.offers[start : start + len(ready.blocks)] = ready.blocks
        self.generations[start : start + len(ready.blocks)] = ready.generations
        self.offered_tokens = max(self.offered_tokens, ready.tokens)
        return ""

    def next_job(self, request: RequestId, epoch: Epoch, peer: str) -> PullJob | None:
        """Everything that is offered and not here, in one pull; None when there is nothing or no block for it."""
        local = self.blocks[self.here_blocks : self.here_blocks + self.wanted_blocks]
        if not local:
            return None
        first = self.here_blocks - self.held_blocks
        wanted = slice(first, first + len(local))
        self.jobs += 1
        return PullJob(
            JobId(request, epoch, self.jobs),
            peer,
            remote_blocks=tuple(self.offers[wanted]),
            local_blocks=local,
            generations=tuple(self.generations[wanted]),
        )

    def admit(self, job: PullJob) -> None:
        """The pull of `job` was checked: its blocks are here."""
        self.here_blocks += len(job.local_blocks)
