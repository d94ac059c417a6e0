"""The GPU's words are the ones that tokens are drawn with everywhere else."""

import pytest
import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.counter_random import random_word, random_words_twin
from tercet.workers.randomness import uniform

pytestmark = pytest.mark.usefixtures("on_device")

SEEDS = [0, 1, 7, 2**31, 2**63 - 1, 2**63, 2**64 - 1, -1, 2**200 + 9]
POSITIONS = [0, 1, 1000, 2**31, 2**40]


@triton.jit
def words_kernel(seeds, positions, words):
    at = tl.program_id(0)
    word = random_word(tl.load(seeds + at), tl.load(positions + at))
    tl.store(words + at, word.to(tl.int64, bitcast=True))


def test_words_are_those_of_the_plain_samplers_numbers() -> None:
    pairs = [(seed, position) for seed in SEEDS for position in POSITIONS]
    low = [(seed + 2**63) % 2**64 - 2**63 for seed, _ in pairs]
    seeds, positions = torch.tensor(low), torch.tensor([position for _, position in pairs])
    words = torch.empty_like(seeds)
    words_kernel[len(pairs),](seeds, positions, words)
    assert torch.equal(words, random_words_twin(seeds, positions))
    for (seed, position), word in zip(pairs, words.tolist(), strict=True):
        assert ((word % 2**64) >> 11) * 2.0**-53 == uniform(seed, position)
