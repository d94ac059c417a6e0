"""Draws the next token of each sequence from its logits.

The outcome depends on the logits, the sequence's log and `(seed, position)`, never on the batch around it: all that a
penalty needs is counted from the log, and randomness comes from `randomness`. Knows no blocks and no model.

    x_RV   logits, one row a sequence, float32        V vocabulary
    p_RV   probabilities of what is still possible    R rows
"""

import math
from collections import Counter
from collections.abc import Sequence as Rows
from typing import NamedTuple

import torch
from torch import Tensor

from tercet.request import Sampling, TokenLogprobs
from tercet.workers.randomness import uniform
from tercet.workers.sequence import Sequence

_NUCLEUS_HEAD = 1024
"""Most nuclei lie within so many most probable tokens: finding those is ten times cheaper than sorting a vocabulary."""


class Drawn(NamedTuple):
    """A token; None when the model's logits are not numbers, and nothing can be drawn."""

    token: int | None
    logprobs: TokenLogprobs | None = None


class Sampler:
    """Samples for one model: it only knows which tokens end a sequence."""

    def __init__(self, eos_token_ids: frozenset[int]) -> None:
        self._eos_token_ids = eos_token_ids

    def draw(self, x_RV: Tensor, sequences: Rows[Sequence]) -> list[Drawn]:
        """One token for each sequence, whose logits are the row of the same index. The logits are left as they are."""
        best, argmax = x_RV.max(dim=1)
        finite = [math.isfinite(value) for value in best.tolist()]
        tokens: list[int] = argmax.tolist()
        shaped = [i for i, s in enumerate(sequences) if finite[i] and not s.plain]
        if not shaped and all(finite):
            return [Drawn(token) for token in tokens]
        drawn = [Drawn(t if ok else None) for t, ok in zip(tokens, finite, strict=True)]
        if shaped:
            raw_RV, chosen = x_RV[shaped], [sequences[i] for i in shaped]
            result = self._draw_shaped(raw_RV.clone(), chosen)
            logprobs = _logprobs(raw_RV, result, chosen)
            for i, token, logprob in zip(shaped, result, logprobs, strict=True):
                drawn[i] = Drawn(token, logprob)
        return drawn

    def _draw_shaped(self, x_RV: Tensor, sequences: list[Sequence]) -> list[int]:
        for x_V, sequence in zip(x_RV, sequences, strict=True):
            self._shape(x_V, sequence)
        tokens: list[int] = x_RV.argmax(dim=1).tolist()
        warm = [i for i, s in enumerate(sequences) if s.spec.sampling.temperature > 0]
        if warm:
            rows = [sequences[i] for i in warm]
            uniforms = [uniform(s.spec.sampling.seed, len(s.tokens)) for s in rows]
            p_RV = _probabilities(x_RV[warm], [s.spec.sampling for s in rows])
            for i, token in zip(warm, _invert(p_RV, uniforms), strict=True):
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


def _probabilities(x_RV: Tensor, samplings: list[Sampling]) -> Tensor:
    """Temperature, then top-k, then top-p of what is left, then min-p; zero for what was cut, not normalised again.

    Cuts are thresholds: tokens as probable as the last one that is kept are kept too, so ties do not depend on a sort.
    """

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=x_RV.device)[:, None]

    # Relative to the best token first: a tiny temperature then cannot overflow.
    x_RV = x_RV - x_RV.amax(dim=1, keepdim=True)
    x_RV /= column([s.temperature for s in samplings])
    vocab = x_RV.shape[1]
    tops = [min(s.top_k, vocab) or vocab for s in samplings]
    limited = [k for k in tops if k < vocab]
    if limited:
        best = x_RV.topk(max(limited), dim=1).values
        for row, (k, values) in enumerate(zip(tops, best, strict=True)):
            if k < vocab:
                x_RV[row].masked_fill_(x_RV[row] < values[k - 1], -math.inf)
    p_RV = x_RV.softmax(dim=1)
    if any(s.top_p < 1 for s in samplings):
        floor = _nucleus_floor(p_RV, column([s.top_p for s in samplings]).double())
        p_RV.masked_fill_(p_RV < floor, 0.0)
    if any(s.min_p > 0 for s in samplings):
        floor = p_RV.amax(dim=1, keepdim=True) * column([s.min_p for s in samplings])
        p_RV.masked_fill_(p_RV < floor, 0.0)
    return p_RV


def _nucleus_floor(p_RV: Tensor, top_p_R1: Tensor) -> Tensor:
    """The smallest probability in each row's nucleus: the fewest most probable tokens that hold `top_p` together."""
    head = p_RV.topk(min(_NUCLEUS_HEAD, p_RV.shape[1]), dim=1).values
    mass = head.double().cumsum(dim=1)
    if head.shape[1] < p_RV.shape[1] and bool(((mass[:, -1:] < top_p_R1) & (top_p_R1 < 1)).any()):
        head = p_RV.sort(dim=1, descending=True).values
        mass = head.double().cumsum(dim=1)
    before = mass - head.double()
    floor = head.masked_fill(before >= top_p_R1, math.inf).amin(dim=1, keepdim=True)
    return floor.masked_fill_(top_p_R1 >= 1, 0.0)


def _invert(p_RV: Tensor, uniforms: list[float]) -> list[int]:
    """The token at which the cumulative distribution, in the vocabulary's order, passes each row's uniform number."""
    mass_RV = p_RV.double().cumsum(dim=1)
    total_R1 = mass_RV[:, -1:].contiguous()
    target_R1 = total_R1 * torch.tensor(uniforms, dtype=torch.float64, device=p_RV.device)[:, None]
    index_R1 = torch.searchsorted(mass_RV, target_R1, right=True)
    # Rounding may lift the target to the total, behind which only impossible tokens lie.
    last_R1 = torch.searchsorted(mass_RV, total_R1)
    tokens: list[int] = torch.minimum(index_R1, last_R1)[:, 0].tolist()
    return tokens


def _logprobs(
    x_RV: Tensor, tokens: list[int], sequences: list[Sequence]
) -> list[TokenLogprobs | None]:
    """What the model itself says about the drawn tokens and their best alternatives, where asked for."""
    result: list[TokenLogprobs | None] = [None] * len(sequences)
    rows = [i for i, s in enumerate(sequences) if s.spec.sampling.logprobs is not None]
    if not rows:
        return result
    log_p_RV = x_RV[rows].log_softmax(dim=1)
    counts = [min(sequences[i].spec.sampling.logprobs or 0, x_RV.shape[1]) for i in rows]
    best = log_p_RV.topk(max(counts), dim=1)
    values, ids = best.values.tolist(), best.indices.tolist()
    for row, (i, count) in enumerate(zip(rows, counts, strict=True)):
        chosen = float(log_p_RV[row, tokens[i]])
        result[i] = TokenLogprobs(
            chosen, list(zip(ids[row][:count], values[row][:count], strict=True))
        )
    return result
