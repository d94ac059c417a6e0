"""What one engine can serve at all. A request beyond that is failed at once instead of disturbing a batch later.

The front door checks what users may ask for; this checks what the model and the pool can do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tercet.request import FinishReason, RequestSpec, Sampling


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one model in one pool."""

    vocab_size: int
    context_tokens_max: int
    eos_token_ids: frozenset[int]
    block_tokens: int
    blocks: int

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold the KV of `tokens` tokens."""
        return -(-tokens // self.block_tokens)

    def finish_of(self, spec: RequestSpec, tokens: Sequence[int]) -> FinishReason | None:
        """Whether the log `tokens` (prompt and output) is complete: derived from the log alone."""
        sampling, output_tokens = spec.sampling, len(tokens) - len(spec.prompt)
        if output_tokens > 0 and output_tokens >= sampling.min_tokens:
            last = tokens[-1]
            if last in self.eos_token_ids and not sampling.ignore_eos:
                return FinishReason.STOP
            if last in sampling.stop_token_ids:
                return FinishReason.STOP
        return FinishReason.LENGTH if self.full(spec, len(tokens)) else None

    def full(self, spec: RequestSpec, length: int) -> bool:
        """Whether a log of so many tokens is complete, whatever they are."""
        output_tokens = length - len(spec.prompt)
        if output_tokens >= spec.sampling.max_tokens:
            return True
        return output_tokens > 0 and length >= self.context_tokens_max

    def objection(self, spec: RequestSpec, tokens: Sequence[int], *, hand_off: bool) -> str | None:
        """Why this can never be served here, or None. `tokens` is the log the engine starts from."""
        if not spec.prompt:
            return "the prompt is empty"
        if self.unknown_token(tokens):
            return f"a token id is outside the vocabulary of {self.vocab_size}"
        if len(tokens) >= self.context_tokens_max:
            return f"{len(tokens)} tokens leave no room in a context of {self.context_tokens_max}"
        # The last token of a request never gets KV; a request that is handed off only needs its prompt's.
        last = len(spec.prompt) + spec.sampling.max_tokens - 1
        needed = self.blocks_for(len(tokens) if hand_off else min(len(tokens) + 1, last))
        if needed > self.blocks:
            return f"{len(tokens)} tokens and the next need {needed} KV blocks, there are {self.blocks}"
        if not 0 <= spec.kv_ttl_s < math.inf:
            return "kv_ttl_s is out of range"
        return self._sampling_objection(spec.sampling)

    def unknown_token(self, tokens: Sequence[int]) -> bool:
        """Whether the model has no embedding for one of them."""
        return min(tokens) < 0 or max(tokens) >= self.vocab_size

    def _sampling_objection(self, sampling: Sampling) -> str | None:
        finite = (
            sampling.presence_penalty,
            sampling.frequency_penalty,
            *sampling.logit_bias.values(),
        )
        allowed = {
            "temperature": 0 <= sampling.temperature < math.inf,
            "top_k": sampling.top_k >= 0,
            "top_p": 0 < sampling.top_p <= 1,
            "min_p": 0 <= sampling.min_p <= 1,
            "repetition_penalty": 0 < sampling.repetition_penalty < math.inf,
            "presence_penalty, frequency_penalty or logit_bias": all(map(math.isfinite, finite)),
            "logit_bias": all(0 <= token < self.vocab_size for token in sampling.logit_bias),
            "logprobs": sampling.logprobs is None or sampling.logprobs >= 0,
        }
        wrong = [name for name, fine in allowed.items() if not fine]
        return f"{wrong[0]} is out of range" if wrong else None
