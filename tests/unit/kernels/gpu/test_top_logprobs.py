import math

import pytest
import torch

from tercet.kernels.gpu.sampling import SamplingScratch, sample
from tercet.kernels.gpu.token_shape import SamplingRows
from tercet.kernels.gpu.top_logprobs import Alternatives, top_logprobs, top_logprobs_twin

pytestmark = pytest.mark.usefixtures("on_device")


def greedy(count: int) -> SamplingRows:
    zeros, ones = torch.zeros(count), torch.ones(count)
    none, slots = zeros.long(), torch.full((count,), -1).int()
    return SamplingRows(
        zeros, none.int(), ones.double(), zeros, ones, zeros, zeros, none, none, slots
    )


def kernel(logits: torch.Tensor, wanted: list[int], alternatives: int) -> Alternatives:
    scratch = SamplingScratch(len(wanted), logits.shape[1], logits.device, chunk=8)
    sample(logits, greedy(len(wanted)), scratch)
    return top_logprobs(logits, torch.tensor(wanted).int(), alternatives, scratch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ties", [False, True])
def test_kernel_agrees_with_its_twin(dtype: torch.dtype, ties: bool) -> None:
    torch.manual_seed(0)
    logits = 2 * torch.randn(4, 37)
    logits = (logits.round() if ties else logits).to(dtype)
    logits[2, :30] = -math.inf
    wanted = [5, 0, 7, 2]
    mine = kernel(logits, wanted, 7)
    twin = top_logprobs_twin(logits, torch.tensor(wanted), 7)
    torch.testing.assert_close(mine.logprob_RA, twin.logprob_RA, atol=1e-5, rtol=1e-5)
    assert torch.equal(mine.token_RA, twin.token_RA)


def test_logits_that_are_no_numbers_have_no_alternatives() -> None:
    logits = torch.tensor([[0.0, math.nan, 1.0], [0.0, 2.0, 1.0]])
    mine = kernel(logits, [2, 2], 2)
    assert mine.token_RA.tolist() == [[-1, -1], [1, 2]]
    assert mine.logprob_RA[0].tolist() == [-math.inf, -math.inf]


def launch() -> None:
    vocab = 151_936
    scratch = SamplingScratch(1, vocab, torch.device("cpu"))
    top_logprobs(torch.empty(1, vocab, dtype=torch.bfloat16), torch.ones(1).int(), 20, scratch)


def test_the_kernel_compiles_without_spilling(compiled) -> None:
    (kernel,) = compiled(launch)
    kernel.check()
