"""A short prompt computed twice: by the model's own attention before anything is replaced, and by the runner afterwards."""

from dataclasses import dataclass

import torch

from tercet.config import EngineConfig
from tercet.errors import ModelUnsupported
from tercet.workers.checkpoint import Checkpoint, eager_logits
from tercet.workers.runner import Runner, Slice

TOKENS = 24
ERROR_MAX = {torch.float32: 1e-3, torch.bfloat16: 0.25, torch.float16: 0.05}
"""Norm of the difference to the model's own logits, relative to theirs. Rounding alone gives at most 1e-5 in fp32 and,
in models of random weights, which amplify it, up to 0.1 in bf16; a wrong position or mask gives 0.5 and more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """`tokens` in chunks that end at each of `ends`, and the logits expected there."""

    family: str
    tokens: list[int]
    ends: list[int]
    expected: torch.Tensor

    @classmethod
    def of(cls, checkpoint: Checkpoint, engine: EngineConfig) -> "Trial":
        """Asks the model, which must still be as it was loaded."""
        room = min(checkpoint.context_tokens_max, engine.kv_blocks * engine.block_tokens)
        vocab_size = int(checkpoint.config.vocab_size)
        # Spread over the vocabulary, the same every time.
        tokens = [(7 + 7919 * index) % vocab_size for index in range(min(TOKENS, room))]
        ends = sorted({max(1, len(tokens) // 2), max(1, len(tokens) - 1), len(tokens)})
        expected = eager_logits(checkpoint.model, tokens, [end - 1 for end in ends])
        return cls(checkpoint.model.config.model_type, tokens, ends, expected)

    def hold(self, runner: Runner) -> None:
        """Raises ModelUnsupported if the runner has other logits; zeroes the blocks it used."""
        blocks = list(range(-(-len(self.tokens) // runner.kv.geometry.block_tokens)))
        logits = torch.cat(
            [
                runner.forward([Slice(self.tokens[start:end], start, blocks, sample=True)])
                for start, end in zip([0, *self.ends], self.ends, strict=False)
            ]
        ).to(self.expected.device)
        runner.kv.tensor[blocks] = 0
        error = float((logits - self.expected).norm() / self.expected.norm())
        if not error <= ERROR_MAX[runner.kv.geometry.dtype]:
            raise ModelUnsupported(
                f"{self.family} gives other logits with paged attention than with its own: they"
                f" differ by {error:.2%}"
            )
