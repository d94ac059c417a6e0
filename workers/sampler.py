"""Draws the next token of each sequence from its logits.

The outcome depends on the logits, the sequence's log and `(seed, position)`, never on the batch around it: all that a
penalty needs is counted from the log, and randomness comes from `randomness`. Knows no blocks and no model.

    x_RV   logits, one row a sequence, float32        V vocabulary
    w_RV   weights: probabilities up to a factor      R rows
"""

import math
from collections import Counter
from collections.abc import Sequence as Rows

import numpy as np
import torch
from torch import Tensor

from tercet.request import Sampling, TokenLogprobs
from tercet.workers.batch import Drawn
from tercet.workers.randomness import uniform
from tercet.workers.sequence import Sequence

_FLOAT32 = torch.finfo(torch.float32)
_NUCLEUS_HEAD = 1024
"""Most nuclei lie within so many most probable tokens, and finding those is cheaper than sorting a vocabulary."""

_GROUP_ROWS = 8
"""Rows drawn together. Above some 2 MB a tensor is mapped anew for every operation: 64 rows at once took 21 ms, not 4.4."""


class Sampler:
    """Samples for one model: it only knows which tokens end a sequence."""

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        self._eos_token_ids = eos_token_ids

    def draw(self, x_RV: Tensor, sequences: Rows[Sequence]) -> list[Drawn]:
        """One token for each sequence, whose logits are the row of the same index. The logits are left as they are."""
        best_R = _argmax(x_RV)
        finite = [math.isfinite(x) for x in x_RV.gather(1, best_R[:, None])[:, 0].tolist()]
        tokens = _to_list(best_R)
        shaped = [i for i, s in enumerate(sequences) if finite[i] and not s.plain]
        if not shaped and all(finite):
            return [Drawn(token) for token in tokens]
        drawn = [Drawn(t if ok else None) for t, ok in zip(tokens, finite, strict=True)]
        for start in range(0, len(shaped), _GROUP_ROWS):
            rows = shaped[start : start + _GROUP_ROWS]
            group = [sequences[i] for i in rows]
            result = self._draw_shaped(x_RV[rows], group)
            logprobs = _logprobs(x_RV, rows, result, group)
            for i, token, logprob in zip(rows, result, logprobs, strict=True):
                drawn[i] = Drawn(token, logprob)
        return drawn

    def _draw_shaped(self, x_RV: Tensor, sequences: list[Sequence]) -> list[int]:
        """Takes the logits over: they are changed."""
        for x_V, sequence in zip(x_RV, sequences, strict=True):
            self._shape(x_V, sequence)
        warm = [i for i, s in enumerate(sequences) if s.spec.sampling.temperature > 0]
        if not warm:
            return _to_list(_argmax(x_RV))
        rows = [sequences[i] for i in warm]
        uniforms = [uniform(s.spec.sampling.seed, len(s.tokens)) for s in rows]
        samplings = [s.spec.sampling for s in rows]
        if len(warm) == len(sequences):
            return _invert(_weights(x_RV, samplings), uniforms)
        tokens = _to_list(_argmax(x_RV))
        drawn = _invert(_weights(x_RV[warm], samplings), uniforms)
        for i, token in zip(warm, drawn, strict=True):
            tokens[i] = token
        return tokens

    def _shape(self, x_V: Tensor, sequence: Sequence) -> None:
        """Bias, penalties and the ban of early ends, in place."""
        sampling = sequence.spec.sampling
        if sampling.logit_bias:
            ids = torch.tensor(list(sampling.logit_bias), device=x_V.device)
            bias = torch.tensor(list(sampling.logit_bias.values()), device=x_V.device)
            x_V[ids] += bias.to(x_V.dtype)
        if sampling.repetition_penalty != 1:
            seen = torch.tensor(sorted(set(sequence.tokens)), device=x_V.device)
            x, penalty = x_V[seen], sampling.repetition_penalty
            x_V[seen] = torch.where(x > 0, x / penalty, x * penalty)
        if sequence.output_tokens and (sampling.presence_penalty or sampling.frequency_penalty):
            often = Counter(sequence.output)
            ids = torch.tensor(list(often), device=x_V.device)
            counts = torch.tensor(list(often.values()), device=x_V.device)
            x_V[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
        if sequence.output_tokens < sampling.min_tokens:
            ends = set(sampling.stop_token_ids)
            if not sampling.ignore_eos:
                ends |= self._eos_token_ids
            x_V[[token for token in ends if 0 <= token < len(x_V)]] = -math.inf


def _weights(x_RV: Tensor, samplings: list[Sampling]) -> Tensor:
    """Probabilities up to a factor, after temperature, top-k, top-p of what top-k left, and min-p; zero for what was cut.

    Cuts are thresholds: tokens as probable as the last one that is kept are kept too, so ties do not depend on a sort.
    """
    # Relative to the best token first: a tiny temperature then cannot overflow. Neither one that vanishes in float32 nor
    # a ban of every token may leave what is not a number: it would be drawn as an id behind the vocabulary.
    x_RV -= x_RV.amax(dim=1, keepdim=True).clamp_(min=_FLOAT32.min)
    temperatures = [max(s.temperature, _FLOAT32.tiny) for s in samplings]
    x_RV /= _column(temperatures, x_RV, torch.float32)
    w_RV = x_RV.exp()
    if any(s.top_k or s.top_p < 1 for s in samplings):
        w_RV *= x_RV >= _floor(x_RV, w_RV, samplings)
    if any(s.min_p for s in samplings):
        w_RV *= w_RV >= _column([s.min_p for s in samplings], x_RV, torch.float32)
    return w_RV


def _floor(x_RV: Tensor, w_RV: Tensor, samplings: list[Sampling]) -> Tensor:
    """`[R, 1]`: the logit of the last token that top-k and top-p keep; `w_RV` is the exponential of `x_RV`."""
    vocab = x_RV.shape[1]
    top_ks = [min(s.top_k or vocab, vocab) for s in samplings]
    top_k_R1 = _column(top_ks, x_RV, torch.int64)
    top_p_R1 = _column([s.top_p for s in samplings], x_RV, torch.float64)
    some_nucleus = any(s.top_p < 1 for s in samplings)
    count = max(k for k in (*top_ks, 1) if k < vocab or k == 1)
    head = _largest(x_RV, min(max(count, _NUCLEUS_HEAD if some_nucleus else 1), vocab))
    mass = head.double().exp().cumsum(dim=1)
    total_R1 = w_RV.sum(dim=1, keepdim=True, dtype=torch.float64)
    everything = top_k_R1 == vocab
    open_R1 = everything & (top_p_R1 < 1) & (mass[:, -1:] < top_p_R1 * total_R1)
    if head.shape[1] < vocab and bool(open_R1.any()):
        head = _largest(x_RV, vocab)
        mass = head.double().exp().cumsum(dim=1)
    last_R1 = (top_k_R1 - 1).clamp_(max=head.shape[1] - 1)
    total_R1 = torch.where(everything, total_R1, mass.gather(1, last_R1))
    nucleus_R1 = torch.minimum(torch.searchsorted(mass, top_p_R1 * total_R1), last_R1)
    floor_R1 = head.gather(1, torch.where(top_p_R1 < 1, nucleus_R1, last_R1))
    return floor_R1.masked_fill_(everything & (top_p_R1 >= 1), -math.inf)


def _column(values: list[float] | list[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """`[R, 1]` on the device of `like`."""
    return torch.tensor(values, dtype=dtype, device=like.device)[:, None]


def _argmax(x_RV: Tensor) -> Tensor:
    """Each row's first largest value, or first NaN. On a CPU numpy's is 11 times as fast as torch's."""
    if x_RV.device.type == "cpu":
        return torch.from_numpy(x_RV.numpy().argmax(axis=1))
    return x_RV.argmax(dim=1)


def _largest(x_RV: Tensor, count: int) -> Tensor:
    """`[R, count]`: each row's largest values in descending order. On a CPU numpy sorts up to 30 times as fast as torch."""
    if x_RV.device.type != "cpu":
        return x_RV.topk(count, dim=1).values
    x = x_RV.numpy()
    if count < x.shape[1]:
        x = np.partition(x, x.shape[1] - count, axis=1)[:, -count:]
    return torch.from_numpy(np.sort(x, axis=1)[:, ::-1].copy())


def _invert(w_RV: Tensor, uniforms: list[float]) -> list[int]:
    """The token at which the cumulative distribution, in the vocabulary's order, passes each row's uniform number."""
    mass_RV = w_RV.double().cumsum(dim=1)
    total_R1 = mass_RV[:, -1:].contiguous()
    target_R1 = total_R1 * _column(uniforms, w_RV, torch.float64)
    index_R1 = torch.searchsorted(mass_RV, target_R1, right=True)
    # Rounding may lift the target to the total, behind which only impossible tokens lie.
    last_R1 = torch.searchsorted(mass_RV, total_R1)
    return _to_list(torch.minimum(index_R1, last_R1)[:, 0])


def _logprobs(
    x_RV: Tensor, rows: list[int], tokens: list[int], sequences: list[Sequence]
) -> list[TokenLogprobs | None]:
    """What the model itself says about the drawn tokens and their best alternatives, where asked for.

    `rows` names the logits of each sequence.
    """
    result: list[TokenLogprobs | None] = [None] * len(sequences)
    asked = [i for i, s in enumerate(sequences) if s.spec.sampling.logprobs is not None]
    if not asked:
        return result
    log_p_RV = x_RV[[rows[i] for i in asked]].log_softmax(dim=1)
    counts = [min(sequences[i].spec.sampling.logprobs or 0, x_RV.shape[1]) for i in asked]
    best = log_p_RV.topk(max(counts), dim=1)
    values, ids = best.values.tolist(), best.indices.tolist()
    for row, (i, count) in enumerate(zip(asked, counts, strict=True)):
        chosen = float(log_p_RV[row, tokens[i]])
        alternatives = list(zip(ids[row][:count], values[row][:count], strict=True))
        result[i] = TokenLogprobs(chosen, alternatives)
    return result


def _to_list(ids_R: Tensor) -> list[int]:
    ids: list[int] = ids_R.tolist()
    return ids
