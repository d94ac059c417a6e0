"""What requests do to their logits before a token is drawn: bias, repetition, presence and frequency penalties.

Legend: R rows of a batch, V vocabulary, S slots: a request that changes its logits keeps one while it runs.

Shaped logits are never stored. Every kernel of the sampler shapes the tile it reads, which costs less than writing
what it would read back. Each step is rounded to fp32 on its own, so kernels that call `shaped_tile` must be compiled
without fused multiply-add, to get what the plain sampler gets, bit for bit. The twin is `shaped_twin`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """How each row's token is drawn, all on the device, and fp32 unless said otherwise.

    Rows with a temperature of 0 are greedy.
    """

    temperature_R: torch.Tensor
    top_k_R: torch.Tensor
    """int32; 0 keeps all."""
    top_p_R: torch.Tensor
    """fp64, as the plain sampler has it: the last token of a nucleus may depend on it."""
    min_p_R: torch.Tensor
    repetition_R: torch.Tensor
    presence_R: torch.Tensor
    frequency_R: torch.Tensor
    seed_R: torch.Tensor
    """int64: the seed's lowest 64 bits."""
    position_R: torch.Tensor
    """int64: how many tokens the sequence has."""
    slot_R: torch.Tensor
    """int32; -1 where a row has neither bias nor penalties."""


@dataclass(frozen=True, slots=True)
class SlotTables:
    """What slots remember, allocated once. Of a slot that is taken, both rows must be set."""

    uses_SV: torch.Tensor
    """int32: twice how often the output has each token, and one more if the prompt has it."""
    bias_SV: torch.Tensor
    """fp32: what is added to each logit first; -inf bans a token."""

    @classmethod
    def zeros(cls, slots: int, vocab: int, device: torch.device) -> "SlotTables":
        uses = torch.zeros((slots, vocab), dtype=torch.int32, device=device)
        return cls(uses, torch.zeros((slots, vocab), dtype=torch.float32, device=device))

    def take(
        self,
        slot: int,
        prompt: torch.Tensor,
        output: torch.Tensor,
        bias: Sequence[tuple[int, float]] = (),
    ) -> None:
        """Makes a slot that of a request with these tokens, int64 and on the device; draws are counted by the sampler."""
        uses_V = self.uses_SV[slot].zero_()
        uses_V.scatter_add_(0, output, torch.full_like(output, 2, dtype=torch.int32))
        uses_V.scatter_(0, prompt, uses_V[prompt] | 1)
        bias_V = self.bias_SV[slot].zero_()
        if bias:
            device = bias_V.device
            ids, values = zip(*bias, strict=True)
            bias_V[torch.tensor(ids, device=device)] = torch.tensor(values, device=device)


@triton.jit
def raw_tile(logits, row, row_stride, at, V):
    return tl.load(logits + row * row_stride + at, mask=at < V, other=float("-inf")).to(tl.float32)


@triton.jit
def shaped_tile(
    x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES: tl.constexpr
):
    """The tile `x` of raw logits at vocabulary places `at`, shaped; `row` is int64."""
    if TABLES:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            x += tl.load(bias + slot * V + at, mask=at < V, other=0.0)
            factor = tl.load(repetition + row)
            once, often = tl.load(presence + row), tl.load(frequency + row)
            if (factor != 1.0) | (once != 0.0) | (often != 0.0):
                used = tl.load(uses + slot * V + at, mask=at < V, other=0)
                punished = tl.where(x > 0, tl.div_rn(x, factor + tl.zeros_like(x)), x * factor)
                x = tl.where(used > 0, punished, x)
                count = used >> 1
                x = tl.where(count > 0, x - (once + often * count.to(tl.float32)), x)
    return x


def shaped_twin(
    logits_RV: torch.Tensor, rows: SamplingRows, tables: SlotTables | None
) -> torch.Tensor:
    """The twin: shaped logits in fp32, as new memory."""
    x_RV = logits_RV.float().clone()
    if tables is None:
        return x_RV
    for r, slot in enumerate(rows.slot_R.tolist()):
        if slot >= 0:
            x_V, uses_V = x_RV[r], tables.uses_SV[slot]
            x_V += tables.bias_SV[slot]
            factor = rows.repetition_R[r]
            x_V.copy_(
                torch.where(uses_V > 0, torch.where(x_V > 0, x_V / factor, x_V * factor), x_V)
            )
            count_V = uses_V >> 1
            malus_V = rows.presence_R[r] + rows.frequency_R[r] * count_V
            x_V.copy_(torch.where(count_V > 0, x_V - malus_V, x_V))
    return x_RV
