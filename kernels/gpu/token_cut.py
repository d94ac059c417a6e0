"""Finds where top-k and top-p cut a row's tokens off, without sorting a vocabulary.

Legend: R rows, V vocabulary, C chunks of it, P parts of it. y is a shaped logit relative to the row's best, over the
temperature: at most 0. A token's key is the bits of |y| as an integer, so smaller keys are more probable and the cut is one
key: tokens with at most that key are kept, and those as probable as the last one that must be kept are kept with it.
Masses are `exp(y)` in fixed point, so sums are exact and it does not matter who adds what first.

Two launches of `pivot_kernel` narrow the cut down to a bracket of keys. Each adds up, in floating point, what the tokens up
to each of eight pivots count or weigh: first pivots a factor of four apart, then eight evenly spaced between those two.
A bracket allows for all that rounding can do. What it leaves, `sampling` gathers while it adds up the chunks, and `cut_of` searches
that exactly. Nothing depends on how tokens are spread: a pivot costs a comparison and an addition a token, wherever
it falls. The definition is that of the plain sampler: top-k first, then top-p of what the k best weigh. The twin is `cut_twin`.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.token_shape import raw_tile, shaped_tile

KEEP_ALL = 0x7F800000  # the key of a token that cannot be drawn
MASS_ONE = float(1 << 43)
"""The best token's mass. Masses of a vocabulary of up to 2^19 can be added, and what is below 1e-13 of the best has none."""
VOCAB_MAX = 1 << 19
PART = 1024
"""A part has at least so many tokens."""
PARTS_MAX = 64
"""A row's parts, each with what it has up to each pivot, and in total."""
PARTS_MIN = 8
"""No sum is of more than `VOCAB_MAX / PARTS_MIN / TILE` tiles one after another: `LEEWAY` allows for that."""
SUMS = 16
"""As many sums as a part may store: those of eight pivots, the total, and nothing."""

TILE = tl.constexpr(PART)
PIVOTS = tl.constexpr(8)
GATHERED = tl.constexpr(32)  # of each chunk, looked at together
_KEEP_ALL = tl.constexpr(KEEP_ALL)
_MASS_ONE = tl.constexpr(MASS_ONE)
_PARTS_MAX = tl.constexpr(PARTS_MAX)
_SUMS = tl.constexpr(SUMS)
LEEWAY = tl.constexpr(2e-5)  # far more than additions and exponentials on a GPU err by
MASSLESS = tl.constexpr(0x42000000)  # the key of 32: what is beyond has no mass
TINY = tl.constexpr(1.1754943508222875e-38)
LOWEST = tl.constexpr(-3.4028234663852886e38)


@triton.jit
def best_of(best, row, C, WIDTH: tl.constexpr):
    """A row's best shaped logit; the smallest number where every token is banned, so that differences stay numbers."""
    at = tl.arange(0, WIDTH)
    return tl.maximum(tl.max(tl.load(best + row * C + at, mask=at < C, other=LOWEST), 0), LOWEST)


@triton.jit
def key_of(x, top, temperature):
    y = x - top
    if temperature != 1.0:
        y = tl.div_rn(y, tl.maximum(temperature, TINY) + tl.zeros_like(x))
    return tl.abs(y).to(tl.int32, bitcast=True)


@triton.jit
def weight_of(key):
    return tl.exp(-key.to(tl.float32, bitcast=True))


@triton.jit
def mass_of(key):
    return (weight_of(key) * _MASS_ONE).to(tl.int64)


@triton.jit
def kept_mass(key, cut, min_p):
    """What tokens weigh after every cut; 0 for those that are gone."""
    return tl.where((key <= cut) & (weight_of(key) >= min_p), mass_of(key), 0)


@triton.jit
def is_some(top_k, V):
    return (top_k > 0) & (top_k < V)


@triton.jit
def is_cut(temperature, top_k, top_p, V):
    return (temperature > 0) & ((top_p < 1) | is_some(top_k, V))


@triton.jit
def _pivot(j, low, high, FIRST: tl.constexpr):
    """Pivot `j`'s key: of 2^-9, 2^-7, … 32; or one of those that divide the keys from `low` to `high` evenly by |y|."""
    if FIRST:
        return (118 + 2 * j) << 23
    else:
        first, last = low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True)
        size = first + (last - first) * ((2 * j + 1) * (1.0 / (2 * PIVOTS)))  # exact fractions
        return size.to(tl.int32, bitcast=True)


@triton.jit
def _up_to(so_far, key, value, pivot):
    return tl.where(key <= pivot, so_far + value, so_far)


@triton.jit
def _bracket(sums, row, parts, top_k, top_p, V, low, high, FIRST: tl.constexpr):
    """The keys from `low` to `high` that the cut may be, narrowed by the sums of a launch with these pivots."""
    part, j = tl.arange(0, _PARTS_MAX)[:, None], tl.arange(0, _SUMS)
    at = (row * _PARTS_MAX + part) * _SUMS + j[None, :]
    sum_J = tl.sum(tl.load(sums + at, mask=(part < parts) & (j[None, :] <= PIVOTS), other=0.0), 0)
    total = tl.sum(tl.where(j == PIVOTS, sum_J, 0.0), 0)
    target = tl.where(is_some(top_k, V), top_k.to(tl.float32), top_p.to(tl.float32) * total)
    pivot_J = _pivot(j, low, high, FIRST)
    below = (j < PIVOTS) & (sum_J * (1 + LEEWAY) < target * (1 - LEEWAY))
    reached = (j < PIVOTS) & (sum_J * (1 - LEEWAY) >= target * (1 + LEEWAY))
    low = tl.maximum(low, tl.max(tl.where(below, pivot_J + 1, 0), 0))
    high = tl.minimum(high, tl.min(tl.where(reached, pivot_J, _KEEP_ALL), 0))
    return low, high


@triton.jit
def first_bracket(brackets, sums, row, part, parts, top_k, top_p, V):
    """What the first launch leaves, noted for the last. No token beyond the key of 32 has mass, so it may as well be kept."""
    low, high = tl.zeros([], tl.int32), tl.full([], _KEEP_ALL, tl.int32)
    low, high = _bracket(sums, row, parts, top_k, top_p, V, low, high, True)
    low, high = tl.minimum(low, MASSLESS), tl.minimum(high, MASSLESS)
    if part == 0:
        tl.store(brackets + row * 3, low)
        tl.store(brackets + row * 3 + 1, high)
    return low, high


@triton.jit
def last_bracket(brackets, sums, row, part, parts, top_k, top_p, V):
    """What the second launch leaves. Its lower end is noted too: a row's gathered keys may begin before it."""
    low, high = tl.load(brackets + row * 3), tl.load(brackets + row * 3 + 1)
    low, high = _bracket(sums, row, parts, top_k, top_p, V, low, high, False)
    if part == 0:
        tl.store(brackets + row * 3 + 2, low)
    return low, high


@triton.jit
def pivot_kernel(
    logits, row_stride, uses, bias, slots, repetition, presence, frequency,
    temperatures, top_ks, top_ps, best, earlier, brackets, sums, V, C,
    FIRST: tl.constexpr, WIDTH: tl.constexpr, TABLES: tl.constexpr,
):  # fmt: skip
    """One part's count (of a row with top-k) or weight up to each pivot, `[R, P, SUMS]`.

    The second launch divides what the sums of the first leave, `earlier`.
    """
    row, part, parts = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    temperature = tl.load(temperatures + row)
    top_k, top_p = tl.load(top_ks + row), tl.load(top_ps + row)
    if is_cut(temperature, top_k, top_p, V):
        some = is_some(top_k, V)
        low, high = 0, 0
        if not FIRST:
            low, high = first_bracket(brackets, earlier, row, part, parts, top_k, top_p, V)
        top = best_of(best, row, C, WIDTH)
        s0 = tl.zeros([TILE], tl.float32)
        s1, s2, s3, s4, s5, s6, s7, total = s0, s0, s0, s0, s0, s0, s0, s0
        for start in range(part * TILE, V, parts * TILE):
            at = start + tl.arange(0, TILE)
            x = raw_tile(logits, row, row_stride, at, V)
            x = shaped_tile(
                x, uses, bias, slots, repetition, presence, frequency, row, at, V, TABLES
            )
            key = key_of(x, top, temperature)
            value = tl.full([TILE], 1.0, tl.float32)
            if not some:
                value = weight_of(key)
            s0 = _up_to(s0, key, value, _pivot(0, low, high, FIRST))
            s1 = _up_to(s1, key, value, _pivot(1, low, high, FIRST))
            s2 = _up_to(s2, key, value, _pivot(2, low, high, FIRST))
            s3 = _up_to(s3, key, value, _pivot(3, low, high, FIRST))
            s4 = _up_to(s4, key, value, _pivot(4, low, high, FIRST))
            s5 = _up_to(s5, key, value, _pivot(5, low, high, FIRST))
            s6 = _up_to(s6, key, value, _pivot(6, low, high, FIRST))
            s7 = _up_to(s7, key, value, _pivot(7, low, high, FIRST))
            total += value
        mine = sums + (row * _PARTS_MAX + part) * _SUMS
        tl.store(mine, tl.sum(s0, 0))
        tl.store(mine + 1, tl.sum(s1, 0))
        tl.store(mine + 2, tl.sum(s2, 0))
        tl.store(mine + 3, tl.sum(s3, 0))
        tl.store(mine + 4, tl.sum(s4, 0))
        tl.store(mine + 5, tl.sum(s5, 0))
        tl.store(mine + 6, tl.sum(s6, 0))
        tl.store(mine + 7, tl.sum(s7, 0))
        tl.store(mine + 8, tl.sum(total, 0))


@triton.jit
def gathered_tile(gathered, count_C, start, CHUNK: tl.constexpr, WIDTH: tl.constexpr):
    """Keys `start` … of those gathered of each chunk, `[WIDTH, GATHERED]`; `KEEP_ALL` where a chunk has no more."""
    i = start + tl.arange(0, GATHERED)[None, :]
    at = tl.arange(0, WIDTH)[:, None] * CHUNK + i
    return tl.load(gathered + at, mask=i < count_C[:, None], other=_KEEP_ALL)


@triton.jit
def _total(tile_CG):
    return tl.sum(tl.sum(tile_CG, axis=1), axis=0)


@triton.jit
def _extent(gathered, count_C, first, CHUNK: tl.constexpr, WIDTH: tl.constexpr):
    """The smallest and the largest of the gathered keys that are at least `first`."""
    low, high = tl.full([], _KEEP_ALL, tl.int32), tl.full([], -1, tl.int32)
    for start in range(0, tl.max(count_C, 0), GATHERED):
        key = gathered_tile(gathered, count_C, start, CHUNK, WIDTH)
        some = (key >= first) & (key < _KEEP_ALL)
        low = tl.minimum(low, tl.min(tl.min(tl.where(some, key, _KEEP_ALL), 1), 0))
        high = tl.maximum(high, tl.max(tl.max(tl.where(some, key, -1), 1), 0))
    return low, high


@triton.jit
def _search(
    gathered, count_C, base, target, low, high,
    MASS: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The smallest key in `[low, high]` so that `base` and all gathered up to it reach `target`; `high` does."""
    while low < high:
        two = low + (high - low) // 2
        one, three = low + (two - low) // 2, two + (high - two) // 2
        to_one = tl.zeros([WIDTH, GATHERED], tl.int64)  # added up once, after the loop
        to_two, to_three = to_one, to_one
        for start in range(0, tl.max(count_C, 0), GATHERED):
            key = gathered_tile(gathered, count_C, start, CHUNK, WIDTH)
            value = mass_of(key) if MASS else tl.full(key.shape, 1, tl.int64)
            to_one += tl.where(key <= one, value, 0)
            to_two += tl.where(key <= two, value, 0)
            to_three += tl.where(key <= three, value, 0)
        to_one, to_two = base + _total(to_one), base + _total(to_two)
        to_three = base + _total(to_three)
        after = tl.where(to_two < target, two, tl.where(to_one < target, one, low - 1))
        low, high = (
            tl.where(to_three < target, three, after) + 1,
            tl.where(
                to_one >= target,
                one,
                tl.where(to_two >= target, two, tl.where(to_three >= target, three, high)),
            ),
        )
    return low


@triton.jit
def _mass_of_best(
    gathered, count_C, top_k, last, CHUNK: tl.constexpr, WIDTH: tl.constexpr
):  # fmt: skip
    """What the `top_k` best weigh, of which `last` is the last; further tokens as probable as it do not count."""
    better, mass = tl.zeros([], dtype=tl.int64), tl.zeros([], dtype=tl.int64)
    equal = tl.zeros([], dtype=tl.int64)
    for start in range(0, tl.max(count_C, 0), GATHERED):
        key = gathered_tile(gathered, count_C, start, CHUNK, WIDTH)
        better += _total((key < last).to(tl.int64))
        mass += _total(tl.where(key < last, mass_of(key), 0))
        equal += _total((key == last).to(tl.int64))
    return mass + tl.minimum(top_k - better, equal) * mass_of(last)


@triton.jit
def cut_of(
    gathered, count_C, first, base, total, top_k, top_p, V,
    CHUNK: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The cut: of a row's gathered keys one that is `first` or more, and `KEEP_ALL` if there is none.

    `base` is what better tokens than the gathered count, or weigh where there is no top-k; `total` what all weigh. With
    top-k and top-p, all the k best must have been gathered, as top-p is of them.
    """
    low, high = _extent(gathered, count_C, first, CHUNK, WIDTH)
    cut = low
    if is_some(top_k, V):
        cut = _search(gathered, count_C, base, top_k.to(tl.int64), low, high, False, CHUNK, WIDTH)
        if top_p < 1:
            mass = _mass_of_best(gathered, count_C, top_k, cut, CHUNK, WIDTH)
            target = tl.ceil(top_p * mass.to(tl.float64)).to(tl.int64)
            low, high = tl.zeros([], tl.int32), cut
            cut = _search(gathered, count_C, base, target, low, high, True, CHUNK, WIDTH)
    else:
        target = tl.ceil(top_p * total.to(tl.float64)).to(tl.int64)
        cut = _search(gathered, count_C, base, target, low, high, True, CHUNK, WIDTH)
    return cut


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
