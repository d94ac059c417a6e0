"""One request inside the engine: its log of tokens, how much of it has KV here, and in which blocks.

Only facts are stored; what follows from them is a property. Knows no pool, queue or model.

    waiting ──► running ◄─► held          waiting   wants to run; owns no blocks
       ▲  ▲        │ ▲        │           running   has blocks for all its tokens, takes part in steps
       │  └────────┘ │  (preempted)       reserved  has blocks that a pull is filling
       ├─ reserved ──┘        │           held      does not run: its KV waits to be pulled by another worker
       └──────────────────────┘
"""

from dataclasses import dataclass, field
from enum import StrEnum

from tercet.blocks import hash_block
from tercet.ids import BlockHash, BlockId, Epoch, RequestId
from tercet.request import RequestSpec, TokenLogprobs
from tercet.wire import Usage


class Phase(StrEnum):
    """Where a sequence stands; see the picture above. From each phase it can end."""

    WAITING = "waiting"
    RUNNING = "running"
    RESERVED = "reserved"
    HELD = "held"
    ENDED = "ended"


@dataclass(slots=True, eq=False)
class Sequence:
    """`tokens` is prompt and output; the KV of its first `computed` tokens is in `blocks`.

    A sequence lacks the KV of its last token at least: feeding that one yields the next. Decoding is the case in which
    nothing else is lacking, so there is no other difference between prefill and decode.
    """

    spec: RequestSpec
    epoch: Epoch
    owner: str
    arrival: int
    """Rises with every request the engine is given."""
    tokens: list[int]
    hand_off: bool = False
    exposure: int = 0
    """The number of the `Expose` by which another worker pulls its KV while it runs; 0 while none does."""
    phase: Phase = Phase.WAITING
    blocks: list[BlockId] = field(default_factory=list)
    computed: int = 0
    ahead: int = 0
    """Tokens behind those whose KV a step under way computes."""
    awaited: int = 0
    """Tokens that steps under way draw, and that the next one would feed."""
    over: bool = False
    """It has said its last; it ends with the steps under way, which still write into its blocks."""
    registered_blocks: int = 0
    """Leading blocks that the pool was told the hashes of."""
    published_blocks: int = 0
    """Leading blocks whose numbers and generations were announced for pulling."""
    known_output: int = 0
    """Output tokens that the owner has: given by it, or sent to it."""
    due: int = 0
    """Until when it should have been prefilled, by the scheduler's count of prefilled tokens; 0 is at once."""
    hoped_tokens: int = 0
    """Leading tokens that the prefix cache held when the sequence joined the queue: an estimate for load figures."""
    fetching: bool = False
    """Its KV is on its way from the host to the prefix cache; it waits in the queue for that."""
    fetched_tokens: int = 0
    """Tokens whose KV has come so since it last got blocks."""
    cached_tokens: int | None = None
    """Prompt tokens that the prefix cache held when the sequence first got blocks; None before."""
    computed_tokens: int = 0
    """Prompt tokens computed here, counting again what was computed again."""
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    """Of the last output tokens, as many as are known here, where the request asked for them."""
    pulled: Usage = field(default_factory=Usage)
    """What the hand-off reported: the `pull…` fields only."""
    recomputed: bool = False
    preemptions: int = 0
    hashes: list[BlockHash] = field(default_factory=list)
    """Of leading blocks, as far as they were asked for, or known from the start."""
    prompt_tokens: int = field(init=False)
    unshaped: bool = field(init=False)
    """What is drawn depends on nothing but the logits and a random number, and nobody asks for more than the token."""
    plain: bool = field(init=False)
    """Greedy besides: the sampler's fast path asks in every step."""

    def __post_init__(self) -> None:
        sampling = self.spec.sampling
        self.prompt_tokens = len(self.spec.prompt)
        self.unshaped = (
            sampling.repetition_penalty == 1
            and sampling.presence_penalty == 0
            and sampling.frequency_penalty == 0
            and not sampling.logit_bias
            and sampling.min_tokens == 0
            and sampling.logprobs is None
        )
        self.plain = self.unshaped and sampling.temperature == 0

    @property
    def id(self) -> RequestId:
        return self.spec.id

    @property
    def published(self) -> bool:
        """Whether another worker may be reading its blocks."""
        return self.hand_off or self.exposure > 0

    @property
    def retention(self) -> str:
        """The name under which its KV is retained when it ends: its conversation's, or its own, which nobody else has."""
        return self.spec.session or self.spec.id

    @property
    def rank(self) -> tuple[int, int]:
        """Sequences decode in ascending and are preempted in descending order of this."""
        return (-self.spec.priority, self.arrival)

    @property
    def urgency(self) -> tuple[int, int, int]:
        """Sequences leave the queue and are prefilled in ascending order of this."""
        return (-self.spec.priority, self.due, self.arrival)

    @property
    def output(self) -> list[int]:
        return self.tokens[self.prompt_tokens :]

    @property
    def output_tokens(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def front(self) -> int:
        """Tokens whose KV is here when the steps under way are over; the next one goes on from there."""
        return self.computed + self.ahead

    @property
    def length(self) -> int:
        """Tokens in the log when the steps under way are over, unless one of them is the last."""
        return len(self.tokens) + self.awaited

    @property
    def remaining(self) -> int:
        """Tokens for the next step; 1 while decoding, 0 when the step under way draws the last one, or did before."""
        return 0 if self.over else len(self.tokens) + self.awaited - self.computed - self.ahead

    @property
    def usage(self) -> Usage:
        return Usage(
            cached_tokens=self.cached_tokens or 0,
            computed_tokens=self.computed_tokens,
            pulled_tokens=self.pulled.pulled_tokens,
            pulled_bytes=self.pulled.pulled_bytes,
            pulled_codec=self.pulled.pulled_codec,
            pull_s=self.pulled.pull_s,
            pull_exposed_s=self.pulled.pull_exposed_s,
            recomputed=self.recomputed,
            preemptions=self.preemptions,
        )

    def block_hashes(self, block_tokens: int) -> list[BlockHash]:
        """The hashes of all full blocks of the log so far, at least; each is computed once."""
        hashes, tokens = self.hashes, self.tokens
        first = len(hashes) * block_tokens
        if first + block_tokens <= len(tokens):
            parent = hashes[-1] if hashes else self.spec.hash_domain.root()
            for start in range(first, len(tokens) - block_tokens + 1, block_tokens):
                parent = hash_block(parent, tokens[start : start + block_tokens])
                hashes.append(parent)
        return hashes

    def forget_blocks(self) -> list[BlockId]:
        """No KV is here any more; returns the blocks that were used. What will be computed again is published again."""
        blocks, self.blocks = self.blocks, []
        self.computed = self.registered_blocks = self.published_blocks = 0
        return blocks
