"""Draws the next token of every row on the GPU, as the plain sampler would.

Legend: R rows, V vocabulary, C chunks of it, A alternatives reported with a token.

Four launches, whatever the rows ask for: (1) each chunk's best shaped logit, and what its raw logits weigh; (2) one key a
row that top-k and top-p cut off at, `token_cut`; (3) what is left of each chunk, in fixed point; (4) the chunk and then the
token at which the cumulative distribution, in the vocabulary's order, passes the row's random number. Rows that need
less leave early. A fifth reports alternatives, `top_logprobs`.

The distribution is inverted, rather than perturbed by Gumbel noise, because a draw is defined by one random number for
`(seed, position)`: so the same logits give the same token on a CPU and on a GPU, unless the number falls within rounding
of the border between two tokens. It also costs one exponential a token and no logarithm. The twin is `sample_twin`.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.counter_random import random_word, random_words_twin
from tercet.kernels.gpu.token_cut import (
    VOCAB_MAX,
    best_of,
    cut_kernel,
    cut_twin,
    key_of,
    mass_of,
    weight_of,
)
from tercet.kernels.gpu.token_shape import (
    SamplingRows,
    SlotTables,
    raw_tile,
    shaped_tile,
    shaped_twin,
)

NO_TOKEN = -1
CHUNK = 4096
UNIFORM_BITS = tl.constexpr(0xFFFFFFFFFFFFF800)  # the 53 that the plain sampler's numbers have


class Sampled(NamedTuple):
    """Token and its log probability, by the raw logits. Where logits are not numbers the token is -1."""

    token_R: torch.Tensor
    logprob_R: torch.Tensor


class SamplingScratch:
    """What the launches of one draw tell each other; allocated once for so many rows.

    A chunk of the vocabulary is one program's. It is a constant of a deployment, so that what is summed in floating point
    is summed in one order.
    """

    def __init__(self, rows_max: int, vocab: int, device: torch.device, chunk: int = CHUNK) -> None:
        assert vocab <= VOCAB_MAX, vocab
        self.chunk, self.chunks = chunk, triton.cdiv(vocab, chunk)
        shape = (rows_max, self.chunks)
        self.best = torch.empty(shape, dtype=torch.float32, device=device)
        self.best_at = torch.empty(shape, dtype=torch.int32, device=device)
        self.raw = torch.empty(shape, dtype=torch.float32, device=device)
        self.raw_sum = torch.empty(shape, dtype=torch.float32, device=device)
        self.mass = torch.empty(shape, dtype=torch.int64, device=device)
        self.cut = torch.empty(rows_max, dtype=torch.int32, device=device)
        self.candidates = torch.empty((rows_max, vocab), dtype=torch.int32, device=device)


@triton.jit
def chunk_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    best, best_at, raw, raw_sum, V, C, CHUNK: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    """Each chunk's best shaped logit and its place, best raw logit, and sum of exponentials relative to that."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    x = raw_tile(logits, row, row_stride, at, V)
    most = tl.max(tl.where(x == x, x, float("inf")), axis=0)  # a NaN is as bad as an infinity
    relative_to = tl.where(tl.abs(most) < float("inf"), most, 0.0)
    tl.store(raw + row * C + chunk, most)
    tl.store(raw_sum + row * C + chunk, tl.sum(tl.exp(tl.minimum(x - relative_to, 0.0)), axis=0))
    y = shaped_tile(x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES)
    value, place = tl.max(y, axis=0, return_indices=True)
    tl.store(best + row * C + chunk, value)
    tl.store(best_at + row * C + chunk, chunk * CHUNK + place)


@triton.jit
def kept_masses(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperature, top, cut, min_p, row, at, V, TABLES: tl.constexpr,
):  # fmt: skip
    """What tokens at `at` weigh after every cut; 0 for those that are gone."""
    x = raw_tile(logits, row, row_stride, at, V)
    x = shaped_tile(x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES)
    key = key_of(x, top, temperature)
    return tl.where((key <= cut) & (weight_of(key) >= min_p) & (at < V), mass_of(key), 0)


@triton.jit
def mass_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, min_ps, best, cuts, mass, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        masses = kept_masses(
            logits, row_stride, uses, bias, slots, repetition, presence, frequency, temperature,
            best_of(best, row, C, WIDTH), tl.load(cuts + row), tl.load(min_ps + row), row,
            chunk * CHUNK + tl.arange(0, CHUNK), V, TABLES,
        )  # fmt: skip
        tl.store(mass + row * C + chunk, tl.sum(masses, axis=0))


@triton.jit
def draw_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, min_ps, seeds, positions, best, best_at, raw, raw_sum, cuts, mass,
    tokens, logprobs, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperatures + row)
    chunks = tl.arange(0, WIDTH)
    most_C = tl.load(raw + row * C + chunks, mask=chunks < C, other=float("-inf"))
    most = tl.max(most_C, axis=0)
    if tl.abs(most) == float("inf"):
        tl.store(tokens + row, -1)
        tl.store(logprobs + row, float("-inf"))
        return
    if temperature > 0:
        mass_C = tl.load(mass + row * C + chunks, mask=chunks < C, other=0)
        reached_C = tl.cumsum(mass_C, axis=0)
        word = random_word(tl.load(seeds + row), tl.load(positions + row)) & UNIFORM_BITS
        total = tl.sum(mass_C, axis=0)
        target = tl.umulhi(word, total.to(tl.uint64)).to(tl.int64)  # less than the total
        chunk = tl.sum((reached_C <= target).to(tl.int32), axis=0)
        before = tl.sum(tl.where(chunks < chunk, mass_C, 0), axis=0)
        masses = kept_masses(
            logits, row_stride, uses, bias, slots, repetition, presence, frequency, temperature,
            best_of(best, row, C, WIDTH), tl.load(cuts + row), tl.load(min_ps + row), row,
            chunk * CHUNK + tl.arange(0, CHUNK), V, TABLES,
        )  # fmt: skip
        passed = (before + tl.cumsum(masses, axis=0) <= target).to(tl.int32)
        token = chunk * CHUNK + tl.sum(passed, axis=0)
        token = tl.where(total > 0, token, 0)  # every token is banned: the first is as bad as any
    else:
        best_C = tl.load(best + row * C + chunks, mask=chunks < C, other=float("-inf"))
        token = tl.load(best_at + row * C + tl.argmax(best_C, axis=0))
    tl.store(tokens + row, token)
    sum_C = tl.load(raw_sum + row * C + chunks, mask=chunks < C, other=0.0)
    sum_C = tl.where(most_C > float("-inf"), sum_C * tl.exp(most_C - most), 0.0)
    x = tl.load(logits + row * row_stride + token).to(tl.float32)
    tl.store(logprobs + row, x - most - tl.log(tl.sum(sum_C, axis=0)))
    if TABLES:
        slot = tl.load(slots + row).to(tl.int64)
        if slot >= 0:
            used = uses + slot * V + token
            tl.store(used, tl.load(used) + 2)


def sample(
    logits_RV: torch.Tensor,
    rows: SamplingRows,
    scratch: SamplingScratch,
    tables: SlotTables | None = None,
) -> Sampled:
    """One token for each row, int32 and on the device; slots count what was drawn. The logits are left as they are.

    Without `tables` no row may have a slot. Logits are fp32, bf16 or fp16, and rows may lie at any distance.
    """
    count, vocab = logits_RV.shape
    assert logits_RV.stride(1) == 1, logits_RV.stride()
    assert scratch.candidates.shape[1] == vocab, (scratch.candidates.shape, vocab)
    assert count <= len(scratch.cut), (count, len(scratch.cut))
    assert tables is None or tables.uses_SV.shape[1] == vocab, vocab
    token_R = torch.empty(count, dtype=torch.int32, device=logits_RV.device)
    logprob_R = torch.empty(count, dtype=torch.float32, device=logits_RV.device)
    if not count:
        return Sampled(token_R, logprob_R)
    uses = scratch.cut if tables is None else tables.uses_SV
    bias = scratch.best if tables is None else tables.bias_SV
    what = (
        logits_RV, logits_RV.stride(0), uses, bias, rows.slot_R,
        rows.repetition_R, rows.presence_R, rows.frequency_R,
    )  # fmt: skip
    chunks = scratch.chunks
    width = triton.next_power_of_2(chunks)
    options = {"TABLES": tables is not None, "CHUNK": scratch.chunk, "enable_fp_fusion": False}
    best, cut, mass = scratch.best, scratch.cut, scratch.mass
    chunk_kernel[count, chunks](
        *what, best, scratch.best_at, scratch.raw, scratch.raw_sum, vocab, chunks,
        num_warps=8, **options,
    )  # fmt: skip
    cut_kernel[count,](
        *what, rows.temperature_R, rows.top_k_R, rows.top_p_R, best, scratch.candidates, cut,
        vocab, chunks, WIDTH=width, num_warps=16, **options,
    )  # fmt: skip
    mass_kernel[count, chunks](
        *what, rows.temperature_R, rows.min_p_R, best, cut, mass, vocab, chunks,
        WIDTH=width, num_warps=8, **options,
    )  # fmt: skip
    draw_kernel[count,](
        *what, rows.temperature_R, rows.min_p_R, rows.seed_R, rows.position_R,
        best, scratch.best_at, scratch.raw, scratch.raw_sum, cut, mass, token_R, logprob_R,
        vocab, chunks, WIDTH=width, num_warps=8, **options,
    )  # fmt: skip
    return Sampled(token_R, logprob_R)


def sample_twin(
    logits_RV: torch.Tensor, rows: SamplingRows, tables: SlotTables | None = None
) -> Sampled:
    """The twin; it changes no slots. Masses are fp64."""
    x_RV = shaped_twin(logits_RV, rows, tables)
    top_R1 = x_RV.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    temperature_R1 = rows.temperature_R.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    y_RV = (x_RV - top_R1) / temperature_R1
    w_RV = y_RV.exp()
    w_RV *= y_RV >= cut_twin(y_RV, rows.top_k_R, rows.top_p_R)[:, None]
    w_RV *= w_RV >= rows.min_p_R[:, None]
    mass_RV = w_RV.double().cumsum(1)
    word_R = random_words_twin(rows.seed_R, rows.position_R)
    uniform_R = ((word_R >> 11) & ((1 << 53) - 1)).double() * 2.0**-53
    total_R1 = mass_RV[:, -1:].contiguous()
    drawn_R1 = torch.searchsorted(mass_RV, total_R1 * uniform_R[:, None], right=True)
    drawn_R1 = drawn_R1.minimum(torch.searchsorted(mass_RV, total_R1))
    warm_R = rows.temperature_R > 0
    token_R = torch.where(warm_R, drawn_R1[:, 0], x_RV.argmax(1))
    logprob_R = logits_RV.float().log_softmax(1).gather(1, token_R[:, None])[:, 0]
    sound_R = logits_RV.float().amax(1).isfinite()  # a NaN is the largest there is
    return Sampled(token_R.where(sound_R, NO_TOKEN).int(), logprob_R.where(sound_R, -torch.inf))
