"""The GPU draws what the plain sampler draws, from the same logits, log and seed; nothing of a row's depends on its batch."""

import math

import numpy as np
import pytest
import torch

from tercet.ids import FIRST_EPOCH, RequestId
from tercet.kernels.gpu.sampling import Sampled, SamplingScratch, sample, sample_twin
from tercet.kernels.gpu.token_cut import MASS_ONE
from tercet.kernels.gpu.token_shape import SamplingRows, SlotTables
from tercet.request import RequestSpec, Sampling
from tercet.workers.sampler import Sampler
from tercet.workers.sequence import Sequence

pytestmark = pytest.mark.usefixtures("on_device")

CHUNK = 16
"""Some 40 tokens are then several chunks."""


def sequence(sampling: Sampling, output: list[int], prompt: list[int]) -> Sequence:
    spec = RequestSpec(RequestId("r"), prompt, sampling)
    return Sequence(spec, FIRST_EPOCH, "f", 0, [*prompt, *output])


def rows_of(sequences: list[Sequence]) -> SamplingRows:
    asked = [s.spec.sampling for s in sequences]
    seeds = [(s.seed + 2**63) % 2**64 - 2**63 for s in asked]
    slots = [-1 if _is_plain(s) else i for i, s in enumerate(asked)]
    return SamplingRows(
        temperature_R=torch.tensor([s.temperature for s in asked]),
        top_k_R=torch.tensor([s.top_k for s in asked]).int(),
        top_p_R=torch.tensor([s.top_p for s in asked], dtype=torch.float64),
        min_p_R=torch.tensor([s.min_p for s in asked]),
        repetition_R=torch.tensor([s.repetition_penalty for s in asked]),
        presence_R=torch.tensor([s.presence_penalty for s in asked]),
        frequency_R=torch.tensor([s.frequency_penalty for s in asked]),
        seed_R=torch.tensor(seeds),
        position_R=torch.tensor([len(s.tokens) for s in sequences]),
        slot_R=torch.tensor(slots).int(),
    )


def _is_plain(s: Sampling) -> bool:
    unpunished = s.presence_penalty == s.frequency_penalty == 0 and s.repetition_penalty == 1
    return unpunished and not s.logit_bias


def tables_of(sequences: list[Sequence], vocab: int) -> SlotTables:
    tables = SlotTables.zeros(len(sequences), vocab, torch.get_default_device())
    for slot, s in enumerate(sequences):
        prompt, output = torch.tensor(s.spec.prompt), torch.tensor(s.output, dtype=torch.int64)
        tables.take(slot, prompt, output, tuple(s.spec.sampling.logit_bias.items()))
    return tables


def draw(
    logits: torch.Tensor, rows: SamplingRows, tables: SlotTables | None = None, chunk: int = CHUNK
) -> Sampled:
    return sample(logits, rows, SamplingScratch(*logits.shape, logits.device, chunk), tables)


def keyed(logits: list[float], count: int, **options: float) -> tuple[torch.Tensor, SamplingRows]:
    """One row of logits under many keys: as many seeds as positions."""
    prompts = [[1] * (1 + i % 7) for i in range(count)]
    sequences = [
        sequence(Sampling(temperature=1.0, seed=i // 7, **options), [], prompt)
        for i, prompt in enumerate(prompts)
    ]
    return torch.tensor([logits]).expand(count, -1), rows_of(sequences)


CUTS: list[dict[str, float]] = [
    {},
    {"top_k": 5},
    {"top_p": 0.7},
    {"min_p": 0.2},
    {"top_k": 9, "top_p": 0.6},
    {"top_k": 1},
    {"top_p": 0.0},
    {"top_k": 999, "top_p": 0.99, "min_p": 0.05},
]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_tokens_and_logprobs_are_the_plain_samplers(cut: dict[str, float], ties: bool) -> None:
    vocab, count = 43, 4
    torch.manual_seed(len(cut) + ties)
    logits = 2 * torch.randn(count, vocab)
    logits = logits.round() if ties else logits
    sequences = []
    for i in range(count):
        sampling = Sampling(
            temperature=(0.0, 0.3, 1.0, 1.7)[i],
            seed=1000 * i - 1,
            logprobs=0,
            repetition_penalty=(1.0, 1.3)[i % 2],
            presence_penalty=(0.0, 0.4)[i // 2 % 2],
            frequency_penalty=(0.0, -0.3, 0.7)[i % 3],
            logit_bias={3: 1.5, 4: -100.0} if i == 3 else {},
            **cut,
        )  # type: ignore[arg-type]
        sequences.append(sequence(sampling, [i, 2, 2, 40][: i % 5], [2, 7, 11 + i]))
    theirs = Sampler(frozenset()).draw(logits.clone(), sequences)
    mine = draw(logits, rows_of(sequences), tables_of(sequences, vocab))
    assert mine.token_R.tolist() == [drawn.token for drawn in theirs]
    expected = [drawn.logprobs.logprob for drawn in theirs if drawn.logprobs]
    assert mine.logprob_R.tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_twin_draws_the_same(dtype: torch.dtype) -> None:
    torch.manual_seed(5)
    logits = torch.randn(4, 37).to(dtype)
    options = [{"top_p": 0.8}, {"top_k": 7, "temperature": 0.7}, {"frequency_penalty": 1.0}, {}]
    sequences = [
        sequence(Sampling(**{"temperature": 1.0, "seed": 9, **o}), [1, 1, 2], [3])  # type: ignore[arg-type]
        for o in options
    ]
    rows, tables = rows_of(sequences), tables_of(sequences, 37)
    twin = sample_twin(logits, rows, tables)
    mine = draw(logits, rows, tables)
    assert torch.equal(mine.token_R, twin.token_R)
    torch.testing.assert_close(mine.logprob_R, twin.logprob_R, atol=1e-5, rtol=1e-5)


def test_the_twins_frequencies_are_the_softmax() -> None:
    chances = [0.4, 0.3, 0.2, 0.06, 0.04]
    logits, rows = keyed([math.log(p) for p in chances], 20_000)
    counts = sample_twin(logits, rows).token_R.bincount(minlength=5)
    assert (counts / 20_000).tolist() == pytest.approx(chances, abs=0.015)


def test_the_kernel_draws_what_the_twin_draws_under_many_keys() -> None:
    logits, rows = keyed([math.log(p) for p in (0.4, 0.3, 0.2, 0.06, 0.04)], 60)
    tokens = draw(logits, rows).token_R
    assert torch.equal(tokens, sample_twin(logits, rows).token_R)
    assert len(tokens.unique()) == 5


@pytest.mark.parametrize(
    ("logits", "cut", "kept"),
    [
        ([3.0, 2.0, 1.0, 0.0], {"top_k": 2}, {0, 1}),
        ([3.0, 2.5, 2.5, 0.0], {"top_k": 2}, {0, 1, 2}),
        ([1.0, 1.0, 0.5, 0.5], {"top_k": 3}, {0, 1, 2, 3}),
        ([-0.92, -1.2, -1.61, -2.3], {"top_p": 0.39}, {0}),
        ([-0.92, -1.2, -1.61, -2.3], {"top_p": 0.41}, {0, 1}),
        ([-1.2, -1.2, -1.2, -2.3], {"top_p": 0.3}, {0, 1, 2}),
        ([-0.92, -1.2, -1.61, -2.3], {"top_p": 0.55, "top_k": 2}, {0}),
        ([-0.92, -1.2, -1.61, -2.3], {"min_p": 0.45}, {0, 1, 2}),
        ([-0.92, -0.92, -1.61, -2.3], {"min_p": 1.0}, {0, 1}),
    ],
)
def test_the_cuts_keep_exactly_these_and_ties_with_the_last_of_them(
    logits: list[float], cut: dict[str, float], kept: set[int]
) -> None:
    scratch = SamplingScratch(1, len(logits), torch.get_default_device(), CHUNK)
    sample(*keyed(logits, 1, **cut), scratch)
    weights = [math.exp(x - max(logits)) for x in logits]
    left = scratch.mass.sum().item() / MASS_ONE
    assert left == pytest.approx(sum(weights[token] for token in kept), rel=1e-6)
    assert set(sample_twin(*keyed(logits, 500, **cut)).token_R.tolist()) == kept


def test_a_nucleus_that_fills_many_bins_and_chunks_is_cut_where_the_twin_cuts() -> None:
    """Weights spread so evenly that the search has thousands of candidates, many of them equal."""
    torch.manual_seed(1)
    logits = (torch.randn(1, 3000) * 4).round() / 8
    rows = rows_of(
        [sequence(Sampling(temperature=1.0, top_p=0.9, seed=s), [], [1]) for s in range(2)]
    )
    mine = draw(logits.expand(2, -1), rows, chunk=1024)
    assert torch.equal(mine.token_R, sample_twin(logits.expand(2, -1), rows).token_R)


def test_a_row_does_not_feel_the_batch() -> None:
    torch.manual_seed(2)
    logits = torch.randn(5, 40)
    options = [{"top_p": 0.9}, {"top_k": 3}, {"temperature": 0.0}, {"presence_penalty": 0.5}, {}]
    sequences = [
        sequence(Sampling(**{"temperature": 1.0, "seed": 3, **o}), [1, 2], [3])  # type: ignore[arg-type]
        for o in options
    ]
    together = draw(logits, rows_of(sequences), tables_of(sequences, 40))
    for r, s in enumerate(sequences):
        alone = draw(logits[r : r + 1], rows_of([s]), tables_of([s], 40))
        assert torch.equal(alone.token_R[0], together.token_R[r])
        assert torch.equal(alone.logprob_R[0], together.logprob_R[r])


def test_slots_count_what_is_drawn() -> None:
    one = sequence(Sampling(frequency_penalty=0.75, presence_penalty=0.5), [], [0])
    tables, logits = tables_of([one], 8), torch.tensor([[4.0, 3.5, 0, 0, 0, 0, 0, 0]])
    rows = rows_of([one])
    drawn = [int(draw(logits, rows, tables).token_R) for _ in range(5)]
    assert drawn == [0, 1, 0, 1, 0], "each draw costs 0.75, the first also 0.5"
    assert tables.uses_SV[0, :2].tolist() == [2 * 3 + 1, 2 * 2]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_logits_that_are_no_numbers_give_no_token_and_harm_no_other_row(wrong: float) -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [1.0, wrong, 0.0], [-math.inf] * 3, [5.0, 2.0, 0.0]])
    rows = rows_of([sequence(Sampling(), [], [1])] * 4)
    mine = draw(logits, rows)
    assert mine.token_R.tolist() == [1, -1, -1, 0]
    assert sample_twin(logits, rows).token_R.tolist() == [1, -1, -1, 0]


@pytest.mark.parametrize("cut", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_a_ban_of_every_token_still_draws_one_and_a_tiny_temperature_is_greedy(
    cut: dict[str, float],
) -> None:
    everything = dict.fromkeys(range(3), -math.inf)
    sequences = [
        sequence(Sampling(temperature=1.0, logit_bias=everything, **cut), [], [1]),  # type: ignore[arg-type]
        sequence(Sampling(temperature=1e-300, **cut), [], [1]),  # type: ignore[arg-type]
    ]
    logits = torch.tensor([[1.0, 80.0, 79.0]] * 2)
    with np.errstate(over="ignore"):  # a quotient too large for a float is as good as infinite
        mine = draw(logits, rows_of(sequences), tables_of(sequences, 3))
    assert mine.token_R[0] in range(3)
    assert mine.token_R[1] == 1


def test_rows_may_lie_apart_and_no_rows_are_no_work() -> None:
    logits = torch.randn(6, 64)[::2, 10:50]
    rows = rows_of([sequence(Sampling(), [], [1])] * 3)
    assert torch.equal(draw(logits, rows).token_R.long(), logits.argmax(1))
    nothing = sample(logits[:0], rows, SamplingScratch(3, 40, torch.get_default_device()))
    assert nothing.token_R.shape == (0,)


def launch() -> None:
    vocab = 151_936
    rows = rows_of([sequence(Sampling(), [], [1])])
    device = torch.get_default_device()
    scratch, tables = SamplingScratch(1, vocab, device), SlotTables.zeros(1, vocab, device)
    sample(torch.empty(1, vocab, dtype=torch.bfloat16), rows, scratch, tables)


def test_the_kernels_compile_without_spilling(compiled) -> None:
    kernels = compiled(launch)
    assert len(kernels) == 5
    for kernel in kernels:
        kernel.check()
