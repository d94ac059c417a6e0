import pytest
import torch
from torch import nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm

from tercet.workers.norm import FastNorm, accelerate_norms


@pytest.mark.parametrize("family", [LlamaRMSNorm, Gemma3RMSNorm, Olmo2RMSNorm])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@torch.no_grad()
def test_norms_of_every_form_are_replaced_by_one_that_answers_alike(
    family: type[nn.Module], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(family(48, eps=1e-5)).to(dtype)
    nn.init.normal_(model[0].weight)
    x = torch.randn(1, 7, 48, dtype=dtype)
    expected = model(x)
    assert accelerate_norms(model) == 1
    assert type(model[0]) is FastNorm
    torch.testing.assert_close(model(x), expected, atol=tolerance, rtol=tolerance)


def test_norms_of_another_form_are_left_alone() -> None:
    class Halved(LlamaRMSNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) / 2

    model = nn.Sequential(nn.LayerNorm(16), Halved(16), nn.BatchNorm1d(16, affine=False))
    assert accelerate_norms(model) == 0
    assert [type(child) for child in model] == [nn.LayerNorm, Halved, nn.BatchNorm1d]
