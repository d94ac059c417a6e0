import pytest
import torch

from tercet.kernels.gpu.gated import Gate, gated, gated_twin

pytestmark = pytest.mark.usefixtures("on_device")

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@pytest.mark.parametrize("gate", Gate)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 6), (3, 34), (2, 2 * 1300)])
def test_kernel_agrees_with_its_twin(
    shape: tuple[int, int], dtype: torch.dtype, gate: Gate
) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(shape)).to(dtype)
    out, tolerance = gated(x, gate), TOLERANCE[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out, gated_twin(x, gate), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("gate", Gate)
def test_gates_far_from_zero_are_open_or_shut(gate: Gate) -> None:
    x = torch.tensor([[80.0, -80.0, 2.0, 3.0]])
    assert gated(x, gate)[0].tolist() == pytest.approx([160.0, 0.0], abs=1e-30)


@pytest.mark.parametrize("gate", Gate)
def test_rows_may_lie_apart_and_a_row_does_not_feel_the_batch(gate: Gate) -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 60)[:, 10:52]
    together = gated(x, gate)
    for n in range(4):
        assert torch.equal(gated(x[n : n + 1], gate)[0], together[n])
    assert gated(x[:0], gate).shape == (0, 21)


def launch() -> None:
    gated(torch.empty(2, 2 * 14336, dtype=torch.bfloat16), Gate.GELU_TANH)


def test_the_kernel_compiles_without_spilling(compiled) -> None:
    (kernel,) = compiled(launch)
    kernel.check()
