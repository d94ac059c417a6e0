"""Finds where top-k and top-p cut a row's tokens off, without sorting a vocabulary.

Legend: R rows, V vocabulary, C chunks of it. y is a shaped logit relative to the row's best, over the temperature: at
most 0. A token's key is the bits of |y| as an integer, so smaller keys are more probable and the cut is one key: tokens
with at most that key are kept, and those as probable as the last one that must be kept are kept with it. Masses are
`exp(y)` in fixed point, so sums are exact and it does not matter who adds what first.

One program a row. It counts tokens by |y| in bins of 1/8; bounds on what each bin weighs tell the few bins that the
cut must be in; it gathers those, and searches the cut's bits among them, sixteen pivots at a time. The definition is that
of the plain sampler: top-k first, then top-p of what the k best weigh. The twin is `cut_twin`.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.token_shape import raw_tile, shaped_tile

KEEP_ALL = 0x7F800000  # the key of a token that cannot be drawn
MASS_ONE = float(1 << 43)
"""The best token's mass. Masses of a vocabulary of up to 2^19 can be added, and what is below 1e-13 of the best has none."""
VOCAB_MAX = 1 << 19

BINS = tl.constexpr(256)
BINS_OF_ONE = tl.constexpr(8.0)
PIVOTS = tl.constexpr(16)
CANDIDATES = tl.constexpr(512)  # looked at together
_KEEP_ALL = tl.constexpr(KEEP_ALL)
_MASS_ONE = tl.constexpr(MASS_ONE)
LEEWAY = tl.constexpr(1e-5)  # far more than exponentials on a GPU err by
TINY = tl.constexpr(1.1754943508222875e-38)
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def best_of(best, row, C, WIDTH: tl.constexpr):
    """A row's best shaped logit; the smallest number where every token is banned, so that differences stay numbers."""
    at = tl.arange(0, WIDTH)
    return tl.maximum(tl.max(tl.load(best + row * C + at, mask=at < C, other=LOWEST), 0), LOWEST)


@triton.jit
def key_of(x, top, temperature):
    y = tl.div_rn(x - top, tl.maximum(temperature, TINY) + tl.zeros_like(x))
    return tl.abs(y).to(tl.int32, bitcast=True)


@triton.jit
def weight_of(key):
    return tl.exp(-key.to(tl.float32, bitcast=True))


@triton.jit
def mass_of(key):
    return (weight_of(key) * _MASS_ONE).to(tl.int64)


@triton.jit
def _key_of_bin(index):
    """The first key of a bin; the last bin has no end."""
    size = (tl.minimum(index, BINS - 1)).to(tl.float32) / BINS_OF_ONE
    return size.to(tl.int32, bitcast=True)


@triton.jit
def _search(candidates, count, base, target, low, high, MASS: tl.constexpr):
    """The smallest key in `[low, high]` so that `base` and all candidates up to it reach `target`; `high` does."""
    pivot = tl.arange(0, PIVOTS)
    while low < high:
        span = (high - low).to(tl.int64)
        pivots = low + (span * (pivot + 1) // (PIVOTS + 1)).to(tl.int32)
        sums = tl.zeros([PIVOTS], dtype=tl.int64) + base
        for start in range(0, count, CANDIDATES):
            at = start + tl.arange(0, CANDIDATES)
            key = tl.load(candidates + at, mask=at < count, other=_KEEP_ALL)
            value = (at < count).to(tl.int64)
            if MASS:
                value *= mass_of(key)
            sums += tl.sum(tl.where(key[:, None] <= pivots[None, :], value[:, None], 0), axis=0)
        short = tl.sum((sums < target).to(tl.int32), axis=0)
        below = tl.sum(tl.where(pivot == short - 1, pivots, 0), axis=0)
        above = tl.sum(tl.where(pivot == short, pivots, 0), axis=0)
        low = tl.where(short > 0, below + 1, low)
        high = tl.where(short < PIVOTS, above, high)
    return low


@triton.jit
def _bracket(counts, top_k, target, BY_COUNT: tl.constexpr):
    """Keys that the cut is between, by how many tokens are in each bin, and bounds on what a bin weighs.

    Places behind the vocabulary are counted in the last bin, whose tokens are taken for candidates in any case.
    """
    if BY_COUNT:
        above = tl.sum((tl.cumsum(counts, axis=0) < top_k).to(tl.int32), axis=0)
        maybe = above
    else:
        index = tl.arange(0, BINS).to(tl.float32)
        heavy = tl.exp(index / -BINS_OF_ONE) * (_MASS_ONE * (1 + LEEWAY))
        light = tl.exp((index + 1) / -BINS_OF_ONE) * (_MASS_ONE * (1 - LEEWAY)) - 1
        most = tl.cumsum(counts.to(tl.float64) * heavy, axis=0)
        least = tl.cumsum(counts.to(tl.float64) * tl.maximum(light, 0.0), axis=0)
        above = tl.sum((most < target.to(tl.float64)).to(tl.int32), axis=0)
        maybe = tl.sum((least < target.to(tl.float64)).to(tl.int32), axis=0)
    high = tl.where(maybe >= BINS - 1, _KEEP_ALL, _key_of_bin(maybe + 1) - 1)
    return _key_of_bin(above), high


@triton.jit
def _mass_of_best(gathered, count, top_k, last):
    """What the `top_k` best weigh, of which `last` is the last; further tokens as probable as it do not count."""
    better, mass = tl.zeros([], dtype=tl.int64), tl.zeros([], dtype=tl.int64)
    for start in range(0, count, CANDIDATES):
        at = start + tl.arange(0, CANDIDATES)
        key = tl.load(gathered + at, mask=at < count, other=_KEEP_ALL)
        better += tl.sum((key < last).to(tl.int64), axis=0)
        mass += tl.sum(tl.where(key < last, mass_of(key), 0), axis=0)
    return mass + (top_k - better) * mass_of(last)


@triton.jit
def cut_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, top_ks, top_ps, best, candidates, cuts, V, C,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperatures + row)
    top_k, top_p = tl.load(top_ks + row), tl.load(top_ps + row)
    some = (top_k > 0) & (top_k < V)
    if (temperature <= 0) | ((top_p >= 1) & (some == 0)):
        tl.store(cuts + row, _KEEP_ALL)
        return
    top = best_of(best, row, C, WIDTH)
    counts = tl.zeros([BINS], dtype=tl.int32)
    total = tl.zeros([], dtype=tl.int64)
    for chunk in range(C):
        at = chunk * CHUNK + tl.arange(0, CHUNK)
        x = raw_tile(logits, row, row_stride, at, V)
        x = shaped_tile(x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES)
        key = key_of(x, top, temperature)
        size = key.to(tl.float32, bitcast=True) * BINS_OF_ONE
        counts += tl.histogram(tl.minimum(size, BINS - 1.0).to(tl.int32), BINS)
        total += tl.sum(mass_of(key), axis=0)

    target = tl.ceil(top_p * total.to(tl.float64)).to(tl.int64)
    if some:
        low, high = _bracket(counts, top_k, target, True)
    else:
        low, high = _bracket(counts, top_k, target, False)
    # Top-p is of what top-k keeps: where there are both, all of that is gathered.
    first = tl.where(some & (top_p < 1), 0, low)
    gathered = candidates + row * V
    count = tl.zeros([], dtype=tl.int32)
    base_count, base_mass = tl.zeros([], dtype=tl.int64), tl.zeros([], dtype=tl.int64)
    for chunk in range(C):
        at = chunk * CHUNK + tl.arange(0, CHUNK)
        x = raw_tile(logits, row, row_stride, at, V)
        x = shaped_tile(x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES)
        key = key_of(x, top, temperature)
        before = (key < first) & (at < V)
        base_count += tl.sum(before.to(tl.int64), axis=0)
        base_mass += tl.sum(tl.where(before, mass_of(key), 0), axis=0)
        chosen = (key >= first) & (key <= high) & (at < V)
        place = count + tl.cumsum(chosen.to(tl.int32), axis=0) - 1
        tl.store(gathered + place, key, mask=chosen)
        count += tl.sum(chosen.to(tl.int32), axis=0)
    tl.debug_barrier()  # what one thread gathered, another reads

    if some:
        high = _search(gathered, count, base_count, top_k.to(tl.int64), low, high, False)
        if top_p < 1:
            mass = _mass_of_best(gathered, count, top_k, high)
            target = tl.ceil(top_p * mass.to(tl.float64)).to(tl.int64)
            high = _search(gathered, count, 0, target, tl.zeros([], dtype=tl.int32), high, True)
    else:
        high = _search(gathered, count, base_mass, target, low, high, True)
    tl.store(cuts + row, high)


def cut_twin(y_RV: torch.Tensor, top_k_R: torch.Tensor, top_p_R: torch.Tensor) -> torch.Tensor:
    """The twin, by sorting: the smallest y that each row keeps, `[R]`; -inf where it keeps all."""
    sorted_RV = y_RV.sort(dim=1, descending=True).values
    mass_RV = sorted_RV.double().exp().cumsum(dim=1)
    vocab = y_RV.shape[1]
    last_R1 = torch.where((top_k_R > 0) & (top_k_R < vocab), top_k_R, vocab).long()[:, None] - 1
    target_R1 = top_p_R[:, None] * mass_RV.gather(1, last_R1)
    nucleus_R1 = torch.searchsorted(mass_RV, target_R1).minimum(last_R1)
    cut_R1 = torch.where(top_p_R[:, None] < 1, nucleus_R1, last_R1)
    floor_R = sorted_RV.gather(1, cut_R1)[:, 0]
    return floor_R.masked_fill((last_R1[:, 0] == vocab - 1) & (top_p_R >= 1), -torch.inf)
