"""One step of attention over a tile of keys and values, in registers: what every attention kernel here repeats.

Source: Milakov and Gimelshein, arXiv 1805.02867, in the form of FlashAttention-2, arXiv 2307.08691. Legend: M rows, K keys of a
tile, D head dim. State: `most_M` is the largest score so far in powers of two, `total_M` the sum of weights, `acc_MD` the
weighted sum of values; both relative to `most_M`. A tile of which a row sees nothing leaves that row's state as it is, bit
for bit.
"""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def begin(sinks, heads_M, valid_M, SINKS: tl.constexpr, M: tl.constexpr, D: tl.constexpr):
    """The state before the first tile. A sink is a score without a value."""
    if SINKS:
        most_M = tl.load(sinks + heads_M, mask=valid_M, other=0.0).to(tl.float32) * LOG2E
        total_M = tl.full([M], 1.0, tl.float32)
    else:
        most_M = tl.full([M], float("-inf"), tl.float32)
        total_M = tl.zeros([M], tl.float32)
    return most_M, total_M, tl.zeros([M, D], tl.float32)


@triton.jit
def queries(q_MD, scale, LEVELLED: tl.constexpr, OPERAND: tl.constexpr, M: tl.constexpr):
    """Queries as operands, and what each row's scores are to be multiplied by. Levelled rows are divided by their largest
    element, so that they fit fp16."""
    if LEVELLED:
        q_MD = q_MD.to(tl.float32)
        size_M = tl.max(tl.abs(q_MD), axis=1)
        size_M = tl.where(size_M > 0, size_M, 1.0)
        return (q_MD / size_M[:, None]).to(OPERAND), size_M * scale
    else:
        return q_MD.to(OPERAND), tl.full([M], scale, tl.float32)


@triton.jit
def capped(scores_MK, scale_M, SOFTCAP: tl.constexpr, M: tl.constexpr):
    """`cap(scale * scores)` and what turns it into powers of two. Without a cap the scale is left to `fold`."""
    if SOFTCAP > 0:
        twice_MK = tl.exp2(scores_MK * (scale_M * (2 * LOG2E / SOFTCAP))[:, None])
        return SOFTCAP - (2 * SOFTCAP) / (twice_MK + 1), tl.full([M], LOG2E, tl.float32)
    else:
        return scores_MK, scale_M * LOG2E


@triton.jit
def hidden(scores_MK, key_K, last_M, WINDOW: tl.constexpr):
    """Scores with -inf where a row does not see a key: `last_M` is each row's own position."""
    visible_MK = key_K[None, :] <= last_M[:, None]
    if WINDOW:
        visible_MK = visible_MK & (key_K[None, :] > last_M[:, None] - WINDOW)
    return tl.where(visible_MK, scores_MK, float("-inf"))


@triton.jit
def fold(
    scores_MK, unit_M, v_KD, most_M, total_M, acc_MD,
    BLIND: tl.constexpr, OPERAND: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Adds a tile to the state. `BLIND` says that a row may have seen nothing yet; hidden scores are -inf."""
    most_now_M = tl.maximum(most_M, tl.max(scores_MK, axis=1) * unit_M)
    base_M = tl.where(most_now_M == float("-inf"), 0.0, most_now_M) if BLIND else most_now_M
    weights_MK = tl.exp2(scores_MK * unit_M[:, None] - base_M[:, None])
    shrink_M = tl.exp2(most_M - base_M)
    total_M = total_M * shrink_M + tl.sum(weights_MK, axis=1)
    acc_MD = acc_MD * shrink_M[:, None]
    acc_MD = tl.dot(weights_MK.to(OPERAND), v_KD, acc_MD, input_precision=PRECISION)
    return most_now_M, total_M, acc_MD
