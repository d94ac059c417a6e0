"""Sampling: exact cuts and penalties, randomness from (seed, position) alone, no influence of the batch."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.randomness import uniform
from tercet.workers.sampler import Sampler
from tercet.workers.sequence import Sequence

EOS = 7
counter = itertools.count()


def make_sequence(
    sampling: Sampling, prompt: list[int] | None = None, output: list[int] | None = None
) -> Sequence:
    prompt = prompt or [1, 2]
    spec = RequestSpec(RequestId(f"r{next(counter)}"), prompt, sampling)
    return Sequence(spec, FIRST_EPOCH, "f", 0, [*prompt, *(output or [])])


def draw(logits: list[float], sampling: Sampling, **log: list[int]) -> int | None:
    x = torch.tensor([logits])
    return Sampler(frozenset({EOS})).draw(x, [make_sequence(sampling, **log)])[0].token


def support(logits: list[float], **options: float) -> set[int | None]:
    """Every token that some seed draws."""
    x = torch.tensor([logits] * 400)
    rows = [make_sequence(Sampling(temperature=1.0, seed=i, **options)) for i in range(400)]
    return {drawn.token for drawn in Sampler(frozenset()).draw(x, rows)}


def test_greedy_takes_the_first_of_the_best() -> None:
    assert draw([0.0, 3.0, 1.0, 3.0], Sampling()) == 1


def test_the_drawn_frequencies_are_the_softmax_at_that_temperature() -> None:
    logits, temperature, rows = [0.0, 1.0, 2.0, -1.0], 0.8, 20_000
    x = torch.tensor([logits] * rows)
    many = [make_sequence(Sampling(temperature=temperature, seed=i)) for i in range(rows)]
    counts = torch.zeros(4)
    for drawn in Sampler(frozenset()).draw(x, many):
        counts[drawn.token] += 1
    expected = (torch.tensor(logits) / temperature).softmax(0)
    assert torch.allclose(counts / rows, expected, atol=0.015)


def test_top_k_keeps_the_k_best_and_ties_with_the_last_of_them() -> None:
    assert support([3.0, 2.0, 1.0, 0.0], top_k=2) == {0, 1}
    assert support([3.0, 2.0, 2.0, 0.0], top_k=2) == {0, 1, 2}
    assert support([1.0, 1.0, 0.5, 0.5], top_k=99) == {0, 1, 2, 3}


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert support(logits, top_p=0.39) == {0}
    assert support(logits, top_p=0.41) == {0, 1}
    assert support(logits, top_p=0.69) == {0, 1}
    assert support(logits, top_p=0.71) == {0, 1, 2}
    assert support(logits, top_p=1.0) == {0, 1, 2, 3}


def test_top_p_counts_within_what_top_k_left() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert support(logits, top_p=0.55, top_k=2) == {0}, "0.4 of 0.7 is 0.57"


def test_min_p_is_relative_to_the_best_token() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert support(logits, min_p=0.45) == {0, 1, 2}
    assert support(logits, min_p=1.0) == {0}


def test_a_nucleus_wider_than_the_sorted_head_is_found_whole() -> None:
    x = torch.zeros(1, 3000)
    x[0, :2000] = 4.0
    rows = [make_sequence(Sampling(temperature=1.0, top_p=0.9, seed=i)) for i in range(500)]
    tokens = [d.token or 0 for d in Sampler(frozenset()).draw(x.repeat(500, 1), rows)]
    assert max(tokens) < 2000
    assert max(tokens) > 1950, "the whole plateau is in the nucleus, ties included"


def test_a_tiny_temperature_is_greedy_and_does_not_overflow() -> None:
    assert draw([1.0, 80.0, 79.0], Sampling(temperature=1e-30, seed=3)) == 1


@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_a_temperature_too_small_for_a_float_is_greedy(cut: dict[str, float]) -> None:
    sampling = Sampling(temperature=1e-300, seed=3, **cut)  # type: ignore[arg-type]
    assert draw([1.0, 80.0, 79.0], sampling) == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_a_ban_of_every_token_still_draws_one_of_the_vocabulary(
    temperature: float, cut: dict[str, float]
) -> None:
    everything = tuple(range(3))
    sampling = Sampling(
        temperature=temperature, seed=3, min_tokens=9, stop_token_ids=everything, logprobs=1, **cut
    )  # type: ignore[arg-type]
    assert draw([1.0, 80.0, 79.0], sampling) in everything


def test_repetition_penalty_counts_prompt_and_output_whatever_the_sign() -> None:
    sampling = Sampling(repetition_penalty=2.0)
    assert draw([4.0, 3.0, 0.0], sampling, prompt=[0]) == 1
    assert draw([-4.0, -3.0, -5.0], sampling, prompt=[2], output=[1]) == 0


def test_presence_and_frequency_penalties_count_output_only() -> None:
    assert draw([2.0, 1.5], Sampling(presence_penalty=1.0), prompt=[0, 0]) == 0
    assert draw([2.0, 1.5], Sampling(presence_penalty=1.0), output=[0]) == 1
    assert draw([2.0, 1.5], Sampling(frequency_penalty=0.3), output=[0]) == 0
    assert draw([2.0, 1.5], Sampling(frequency_penalty=0.3), output=[0, 0]) == 1


def test_logit_bias_lifts_and_bans() -> None:
    assert draw([2.0, 1.0, 0.0], Sampling(logit_bias={2: 5.0})) == 2
    assert draw([2.0, 1.0, 0.0], Sampling(logit_bias={0: -100.0})) == 1


def test_min_tokens_bans_every_end_until_then() -> None:
    logits = [float(i) for i in range(8)]
    sampling = Sampling(min_tokens=2, stop_token_ids=(6,))
    assert draw(logits, sampling, output=[1]) == 5
    assert draw(logits, sampling, output=[1, 1]) == EOS
    assert draw(logits, Sampling(min_tokens=2, ignore_eos=True)) == EOS, "it would not end anything"


def test_logprobs_come_from_the_unmodified_logits() -> None:
    logits = [2.0, 1.0, 0.0]
    sampling = Sampling(logprobs=2, logit_bias={2: 50.0})
    drawn = Sampler(frozenset()).draw(torch.tensor([logits]), [make_sequence(sampling)])[0]
    expected = torch.tensor(logits).log_softmax(0).tolist()
    assert drawn.token == 2
    assert drawn.logprobs is not None
    assert drawn.logprobs.logprob == pytest.approx(expected[2])
    assert [token for token, _ in drawn.logprobs.top] == [0, 1]
    assert [value for _, value in drawn.logprobs.top] == pytest.approx(expected[:2])
    alone = Sampling(logprobs=0)
    drawn = Sampler(frozenset()).draw(torch.tensor([logits]), [make_sequence(alone)])[0]
    assert drawn.logprobs is not None
    assert drawn.logprobs.top == []


def test_logits_that_are_not_numbers_yield_no_token_and_spare_the_other_rows() -> None:
    x = torch.tensor([[1.0, math.nan], [0.0, 1.0], [math.inf, 0.0], [0.0, 1.0]])
    rows = [make_sequence(Sampling(temperature=float(i == 3))) for i in range(4)]
    drawn = [d.token for d in Sampler(frozenset()).draw(x, rows)]
    assert (drawn[0], drawn[1], drawn[2]) == (None, 1, None)
    assert drawn[3] in (0, 1)


def test_the_logits_are_left_as_they_were() -> None:
    x = torch.randn(3, 50)
    before = x.clone()
    shaped = Sampling(temperature=0.5, top_k=4, repetition_penalty=2.0, logprobs=1, min_tokens=1)
    Sampler(frozenset({1})).draw(x, [make_sequence(shaped) for _ in range(3)])
    assert torch.equal(x, before)


def test_the_draw_is_the_inverse_of_the_distribution_in_vocabulary_order() -> None:
    """The definition itself, so that any other implementation can be compared with it."""
    x = torch.randn(1, 40, generator=torch.Generator().manual_seed(1))
    for seed in range(50):
        sequence = make_sequence(Sampling(temperature=1.0, seed=seed), output=[3] * seed)
        target = uniform(seed, len(sequence.tokens))
        masses = itertools.accumulate(x[0].double().softmax(0).tolist())
        expected = next(token for token, mass in enumerate(masses) if mass > target)
        assert Sampler(frozenset()).draw(x, [sequence])[0].token == expected


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 5, 2000]),
    top_p=st.sampled_from([1.0, 0.9, 0.2]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    frequency_penalty=st.sampled_from([0.0, 0.4]),
    seed=st.integers(0, 2**63),
    logprobs=st.sampled_from([None, 0, 3]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(samplings, min_size=1, max_size=6), st.integers(0, 1000))
def test_a_row_draws_the_same_alone_and_in_any_batch(rows: list[Sampling], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(len(rows), 1500, generator=generator) * 3).bfloat16().float()  # many ties
    sampler = Sampler(frozenset({EOS}))
    sequences = [make_sequence(s, prompt=[i + 1, 9, 9], output=[4] * i) for i, s in enumerate(rows)]
    together = sampler.draw(x, sequences)
    backwards = sampler.draw(x.flip(0).contiguous(), sequences[::-1])[::-1]
    alone = [sampler.draw(x[i : i + 1], [s])[0] for i, s in enumerate(sequences)]
    assert [d.token for d in together] == [d.token for d in alone] == [d.token for d in backwards]
