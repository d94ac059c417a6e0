import pytest
import torch
from torch import nn
from transformers.activations import ACT2FN

from tercet.workers.activation import FastActivation, accelerate_activations


@pytest.mark.parametrize("name", ["silu", "swish", "gelu_pytorch_tanh", "gelu_new", "gelu_fast"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_activations_of_every_name_are_replaced_by_one_that_answers_alike(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    model = nn.Sequential(ACT2FN[name])
    x = torch.linspace(-9, 9, 1001).to(dtype)
    expected = model(x)
    assert accelerate_activations(model, dtype) == 1
    assert type(model[0]) is FastActivation
    torch.testing.assert_close(model(x), expected, atol=tolerance, rtol=tolerance)


def test_everything_else_is_left_alone() -> None:
    class Pair(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * y

    others = [
        nn.ReLU(),
        nn.Identity(),
        nn.Tanh(),
        nn.GELU(),
        nn.Dropout(0.5),
        Pair(),
        nn.Linear(2, 2),
    ]
    model = nn.Sequential(*others)
    assert accelerate_activations(model, torch.float32) == 0
    assert list(model) == others
