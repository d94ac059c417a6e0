"""Draws the next token of every row on the GPU, as the plain sampler would.

Legend: R rows, V vocabulary, C chunks of it, A alternatives reported with a token.

Five launches, whatever the rows ask for: (1) each chunk's best shaped logit, and what its raw logits weigh; (2) and (3) bracket
the key that top-k and top-p cut off at, `token_cut`; (4) what is before that bracket in each chunk, in fixed point, and
the keys in it; (5) the exact cut among those, then the chunk and then the token at which the cumulative distribution, in
the vocabulary's order, passes the row's random number. Another launch reports alternatives, `top_logprobs`.

Rows that need less leave early: a greedy row reads its logits once, one with a temperature twice, one that is cut four
times (0.3 MB each time, of 151,936 tokens in bf16), and the last launch reads one chunk more. A row writes a few kB,
and four bytes for each gathered key: typically some hundred, of flat logits some ten thousand.

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
    GATHERED,
    KEEP_ALL,
    PART,
    PARTS_MAX,
    PARTS_MIN,
    SUMS,
    VOCAB_MAX,
    best_of,
    cut_of,
    cut_twin,
    gathered_tile,
    is_cut,
    is_some,
    kept_mass,
    key_of,
    last_bracket,
    mass_of,
    pivot_kernel,
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
PROGRAMS = 1056
"""Eight a multiprocessor of an H100 or H200. Passes after the first are split into about so many, if there are rows to split."""
_KEEP_ALL = tl.constexpr(KEEP_ALL)
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
        self.vocab, self.chunk, self.chunks = vocab, chunk, triton.cdiv(vocab, chunk)

        def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.empty((rows_max, *shape), dtype=dtype, device=device)

        self.best, self.raw, self.raw_sum = (
            empty(self.chunks, dtype=torch.float32) for _ in range(3)
        )
        self.mass, self.total, self.base = (empty(self.chunks, dtype=torch.int64) for _ in range(3))
        self.first_sums, self.sums = (empty(PARTS_MAX, SUMS, dtype=torch.float32) for _ in range(2))
        self.bracket = empty(3, dtype=torch.int32)
        self.gathered_count = empty(self.chunks, dtype=torch.int32)
        self.gathered = empty(self.chunks * chunk, dtype=torch.int32)


@triton.jit
def chunk_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    best, raw, raw_sum, V, C, CHUNK: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    """Each chunk's best shaped logit, best raw logit, and sum of exponentials relative to that."""
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    x = raw_tile(logits, row, row_stride, at, V)
    most = tl.max(x, axis=0)
    sum_ = tl.sum(tl.exp(x - tl.where(tl.abs(most) < float("inf"), most, 0.0)), axis=0)
    most = tl.where(sum_ == sum_, most, float("inf"))  # a NaN is as bad as an infinity
    tl.store(raw + row * C + chunk, most)
    tl.store(raw_sum + row * C + chunk, sum_)
    if TABLES:
        slot = tl.load(slots + row)
        if slot >= 0:
            y = shaped_tile(
                x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES
            )
            most = tl.max(y, axis=0)
    tl.store(best + row * C + chunk, most)


@triton.jit
def mass_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, top_ks, top_ps, min_ps, best, brackets, sums,
    mass, total, base, gathered, gathered_count, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    """What each chunk's tokens weigh that are before the cut's bracket for sure, and the gathered keys of those that are in it.

    Before and in all: what `cut_of` is told. A row with top-k and top-p gathers everything up to the bracket's end.
    """
    row, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        top_k, top_p, min_p = tl.load(top_ks + row), tl.load(top_ps + row), tl.load(min_ps + row)
        some, cuts = is_some(top_k, V), is_cut(temperature, top_k, top_p, V)
        first, last = tl.full([], _KEEP_ALL, tl.int32), tl.full([], -1, tl.int32)
        if cuts:
            first, last = last_bracket(brackets, sums, row, part, parts, top_k, top_p, V)
            first = tl.where(some & (top_p < 1), 0, first)
        top = best_of(best, row, C, WIDTH)
        for chunk in range(part, C, parts):
            at = chunk * CHUNK + tl.arange(0, CHUNK)
            x = raw_tile(logits, row, row_stride, at, V)
            x = shaped_tile(
                x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES
            )
            key, note = key_of(x, top, temperature), row * C + chunk
            before = tl.sum(tl.where(key < first, mass_of(key), 0), axis=0)
            if cuts:
                if some:
                    is_before = (key < first).to(tl.int32)
                    tl.store(base + note, tl.sum(is_before, axis=0).to(tl.int64))
                else:
                    tl.store(base + note, before)
                    tl.store(total + note, tl.sum(mass_of(key), axis=0))
                chosen = ((key >= first) & (key <= last)).to(tl.int32)
                count = tl.sum(chosen, axis=0)
                tl.store(gathered_count + note, count)
                if count > 0:
                    place = note * CHUNK + tl.cumsum(chosen, axis=0) - 1
                    tl.store(gathered + place, key, mask=chosen > 0)
            if min_p > 0:
                before = tl.sum(kept_mass(key, first - 1, min_p), axis=0)
            tl.store(mass + note, before)


@triton.jit
def draw_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, top_ks, top_ps, min_ps, seeds, positions, best, raw, raw_sum, brackets,
    mass, total, base, gathered, gathered_count, tokens, logprobs, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature, min_p = tl.load(temperatures + row), tl.load(min_ps + row)
    chunks = tl.arange(0, WIDTH)
    notes, there = row * C + chunks, chunks < C
    most_C = tl.load(raw + notes, mask=there, other=float("-inf"))
    most = tl.max(most_C, axis=0)
    if tl.abs(most) == float("inf"):
        tl.store(tokens + row, -1)
        tl.store(logprobs + row, float("-inf"))
        return
    cut, target = tl.full([], _KEEP_ALL, tl.int32), tl.zeros([], tl.int64)
    if temperature > 0:
        mass_C = tl.load(mass + notes, mask=there, other=0)
        top_k, top_p = tl.load(top_ks + row), tl.load(top_ps + row)
        if is_cut(temperature, top_k, top_p, V):
            keys = gathered + row * C * CHUNK
            count_C = tl.load(gathered_count + notes, mask=there, other=0)
            cut = cut_of(
                keys, count_C, tl.load(brackets + row * 3 + 2),
                tl.sum(tl.load(base + notes, mask=there, other=0), axis=0),
                tl.sum(tl.load(total + notes, mask=there, other=0), axis=0),
                top_k, top_p, V, CHUNK, WIDTH,
            )  # fmt: skip
            for start in range(0, tl.max(count_C, 0), GATHERED):
                key = gathered_tile(keys, count_C, start, CHUNK, WIDTH)
                mass_C += tl.sum(kept_mass(key, cut, min_p), axis=1)
            tl.store(mass + notes, mass_C, mask=there)
        word = random_word(tl.load(seeds + row), tl.load(positions + row)) & UNIFORM_BITS
        total_mass = tl.sum(mass_C, axis=0)
        target = tl.umulhi(word, total_mass.to(tl.uint64)).to(tl.int64)  # less than the total
        chunk = tl.sum((tl.cumsum(mass_C, axis=0) <= target).to(tl.int32), axis=0)
        target -= tl.sum(tl.where(chunks < chunk, mass_C, 0), axis=0)
        chunk = tl.where(total_mass > 0, chunk, 0)  # every token is banned: any is as bad
    else:
        best_C = tl.load(best + notes, mask=there, other=float("-inf"))
        chunk = tl.argmax(best_C, axis=0)
    at = chunk * CHUNK + tl.arange(0, CHUNK)
    x = raw_tile(logits, row, row_stride, at, V)
    x = shaped_tile(x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES)
    if temperature > 0:
        key = key_of(x, best_of(best, row, C, WIDTH), temperature)
        passed = tl.cumsum(kept_mass(key, cut, min_p), axis=0) > target
        token = tl.min(tl.where(passed, at, chunk * CHUNK + CHUNK - 1), axis=0)
    else:
        token = tl.min(tl.where(x == tl.max(x, axis=0), at, V), axis=0)
    token = tl.minimum(token, V - 1)
    tl.store(tokens + row, token)
    sum_C = tl.load(raw_sum + notes, mask=there, other=0.0)
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
    assert scratch.vocab == vocab, (scratch.vocab, vocab)
    assert count <= len(scratch.best), (count, len(scratch.best))
    assert tables is None or tables.uses_SV.shape[1] == vocab, vocab
    token_R = torch.empty(count, dtype=torch.int32, device=logits_RV.device)
    logprob_R = torch.empty(count, dtype=torch.float32, device=logits_RV.device)
    if not count:
        return Sampled(token_R, logprob_R)
    uses = scratch.bracket if tables is None else tables.uses_SV
    bias = scratch.best if tables is None else tables.bias_SV
    what = (
        logits_RV, logits_RV.stride(0), uses, bias, rows.slot_R,
        rows.repetition_R, rows.presence_R, rows.frequency_R,
    )  # fmt: skip
    s, chunks = scratch, scratch.chunks
    parts = min(max(PROGRAMS // count, PARTS_MIN), PARTS_MAX, triton.cdiv(vocab, PART))
    options = {"TABLES": tables is not None, "enable_fp_fusion": False}
    width = {"WIDTH": triton.next_power_of_2(chunks)}
    chunk_kernel[count, chunks](
        *what, s.best, s.raw, s.raw_sum, vocab, chunks,
        CHUNK=s.chunk, num_warps=8 if tables else 4, **options,
    )  # fmt: skip
    cuts = (rows.temperature_R, rows.top_k_R, rows.top_p_R)
    for first, sums in ((True, s.first_sums), (False, s.sums)):
        pivot_kernel[count, parts](
            *what, *cuts, s.best, s.first_sums, s.bracket, sums, vocab, chunks,
            FIRST=first, num_warps=4, **width, **options,
        )  # fmt: skip
    masses = (s.mass, s.total, s.base, s.gathered, s.gathered_count)
    mass_kernel[count, parts](
        *what, *cuts, rows.min_p_R, s.best, s.bracket, s.sums, *masses, vocab, chunks,
        CHUNK=s.chunk, num_warps=8, **width, **options,
    )  # fmt: skip
    draw_kernel[count,](
        *what, *cuts, rows.min_p_R, rows.seed_R, rows.position_R, s.best, s.raw, s.raw_sum,
        s.bracket, *masses, token_R, logprob_R, vocab, chunks,
        CHUNK=s.chunk, num_warps=8, **width, **options,
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
