"""The request: an immutable specification and an append-only log of tokens.

Whatever happens to a request, its truth is this log. A worker that is given the specification and the tokens so far can
continue exactly where another one stopped, because sampling depends on nothing but the log and `(seed, position)`.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from tercet.blocks import HashDomain
from tercet.ids import FIRST_EPOCH, Epoch, RequestId


class FinishReason(StrEnum):
    """Why a generation ended, in OpenAI's words where it has them."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Sampling(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """How the next token is drawn. Defaults are greedy decoding without limits other than `max_tokens`."""

    max_tokens: int = 16
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 keeps all."""
    top_p: float = 1.0
    min_p: float = 0.0
    """Drop tokens less probable than `min_p` times the most probable one."""
    repetition_penalty: float = 1.0
    """Over prompt and output: positive logits are divided by it, negative ones multiplied."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    """With the position, the only source of randomness; always set, so that a replay draws the same tokens."""
    logprobs: int | None = None
    """How many alternatives to report with each token; 0 reports the chosen token alone, None reports nothing."""
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    """No end-of-sequence or stop token before this many output tokens."""
    ignore_eos: bool = False


class RequestSpec(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """Everything a worker must know about a request, besides the tokens generated so far."""

    id: RequestId
    prompt: list[int]
    sampling: Sampling
    priority: int = 0
    """Higher runs first; the lowest is preempted first."""
    adapter_id: str = ""
    tenant_salt: str = ""
    kv_ttl_s: float = 0.0
    """How long its KV will probably be wanted again once it has ended; 0 makes no claim."""
    session: str = ""
    """The client's name for a conversation, whose next turn wants that KV; empty when it gave none."""

    @property
    def hash_domain(self) -> HashDomain:
        return HashDomain(adapter_id=self.adapter_id, tenant_salt=self.tenant_salt)


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log-probabilities (natural log, of the unmodified distribution) that go with one token."""

    logprob: float
    top: list[tuple[int, float]] = []
    """`(token, logprob)` of the most probable tokens, best first."""


@dataclass(slots=True)
class TokenLog:
    """The output tokens of one request as the front door knows them: the truth from which everything can be replayed.

    Tokens arrive as `(epoch, index, tokens)`. What an owner before `fence` says is dropped, and so is every index already
    known; a gap cannot be repaired and is the caller's bug, because each owner starts from a log it was given.
    """

    tokens: list[int] = field(default_factory=list)
    fence: Epoch = FIRST_EPOCH

    def append(self, epoch: Epoch, index: int, tokens: list[int]) -> list[int]:
        """Add what is new of `tokens`, which start at output position `index`; returns the new ones."""
        if epoch < self.fence:
            return []
        known = len(self.tokens)
        assert index <= known, f"gap in the token log: {index=} {known=} {epoch=}"
        self.fence = epoch
        fresh = tokens[known - index :]
        self.tokens.extend(fresh)
        return fresh

    def raise_fence(self, epoch: Epoch) -> None:
        """From now on owners before `epoch` are not listened to."""
        assert epoch > self.fence, f"a fence only rises ({epoch=} {self.fence=})"
        self.fence = epoch
