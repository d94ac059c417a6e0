"""The most probable tokens of each row and their log probabilities, by the raw logits, after `sampling.sample`.

Legend: R rows, V vocabulary, C chunks of it, A alternatives. Best first, and of equal ones the first of the vocabulary.
A program takes one row's alternatives one by one from the chunks, whose best it knows, and reads one chunk for each. The twin is
`top_logprobs_twin`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.sampling import NO_TOKEN, SamplingScratch
from tercet.kernels.gpu.token_shape import raw_tile


class Alternatives(NamedTuple):
    """What a row did not ask for is -1, with -inf."""

    token_RA: torch.Tensor
    logprob_RA: torch.Tensor


@triton.jit
def top_kernel(
    logits, row_stride, wanted, raw, raw_sum, tokens, logprobs, A, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    chunks = tl.arange(0, WIDTH)
    next_C = tl.load(raw + row * C + chunks, mask=chunks < C, other=float("-inf"))
    most = tl.max(next_C, axis=0)
    sound = tl.abs(most) < float("inf")
    most = tl.where(sound, most, 0.0)
    sum_C = tl.load(raw_sum + row * C + chunks, mask=chunks < C, other=0.0)
    sum_C = tl.where(next_C > float("-inf"), sum_C * tl.exp(tl.minimum(next_C - most, 0.0)), 0.0)
    log_total = most + tl.log(tl.maximum(tl.sum(sum_C, axis=0), 1e-30))
    count = tl.where(sound, tl.minimum(tl.load(wanted + row), A), 0)
    taken_C = tl.full(
        [WIDTH], -1, dtype=tl.int32
    )  # the last of each chunk's tokens as good as its next
    for a in range(A):
        token = -1
        logprob = float("-inf")
        if a < count:
            value, chunk = tl.max(next_C, axis=0, return_indices=True)
            taken = tl.sum(tl.where(chunks == chunk, taken_C, 0), axis=0)
            at = chunk * CHUNK + tl.arange(0, CHUNK)
            x = raw_tile(logits, row, row_stride, at, V)
            token = tl.min(tl.where((x == value) & (at > taken), at, V), axis=0)
            logprob = value - log_total
            again = tl.sum(((x == value) & (at > token)).to(tl.int32), axis=0) > 0
            lower = tl.max(tl.where(x < value, x, float("-inf")), axis=0)
            next_C = tl.where(chunks == chunk, tl.where(again, value, lower), next_C)
            taken_C = tl.where(chunks == chunk, tl.where(again, token, -1), taken_C)
        tl.store(tokens + row * A + a, token)
        tl.store(logprobs + row * A + a, logprob)


def top_logprobs(
    logits_RV: torch.Tensor, wanted_R: torch.Tensor, alternatives: int, scratch: SamplingScratch
) -> Alternatives:
    """`wanted_R[r]` alternatives of each row, int32 and at most `alternatives`; `scratch` is that of a draw from these logits."""
    count, vocab = logits_RV.shape
    device = logits_RV.device
    assert alternatives <= vocab, (alternatives, vocab)
    token_RA = torch.empty((count, alternatives), dtype=torch.int32, device=device)
    logprob_RA = torch.empty((count, alternatives), dtype=torch.float32, device=device)
    if count and alternatives:
        top_kernel[count,](
            logits_RV, logits_RV.stride(0), wanted_R, scratch.raw, scratch.raw_sum,
            token_RA, logprob_RA, alternatives, vocab, scratch.chunks,
            CHUNK=scratch.chunk, WIDTH=triton.next_power_of_2(scratch.chunks), num_warps=8,
        )  # fmt: skip
    return Alternatives(token_RA, logprob_RA)


def top_logprobs_twin(
    logits_RV: torch.Tensor, wanted_R: torch.Tensor, alternatives: int
) -> Alternatives:
    """The twin."""
    log_p_RV = logits_RV.float().log_softmax(1)
    best = log_p_RV.sort(dim=1, descending=True, stable=True)
    unasked_RA = torch.arange(alternatives, device=wanted_R.device) >= wanted_R[:, None]
    unasked_RA |= ~logits_RV.float().amax(1).isfinite()[:, None]
    return Alternatives(
        best.indices[:, :alternatives].int().masked_fill(unasked_RA, NO_TOKEN),
        best.values[:, :alternatives].masked_fill(unasked_RA, -torch.inf),
    )
