import pytest
import torch

from tercet.kernels.gpu.row_codes import row_codes, row_codes_twin

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("m", "k"), [(1, 64), (5, 1100), (3, 1)])
def test_kernel_agrees_with_its_twin(m: int, k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(m)
    x = (torch.randn(m, k) * torch.logspace(-3, 3, m)[:, None]).to(dtype)
    made, twin = row_codes(x), row_codes_twin(x)
    torch.testing.assert_close(made.scales_M1, twin.scales_M1, atol=0, rtol=1e-6)
    # A quotient that lies within rounding of the border between two codes may become either.
    differ = made.codes_MK.float() != twin.codes_MK.float()
    assert differ.float().mean() < 1e-2
    back = made.codes_MK.float() * made.scales_M1
    torch.testing.assert_close(
        back, x.float(), rtol=2**-4, atol=float(twin.scales_M1.max()) * 2**-9
    )


def test_the_largest_element_becomes_the_largest_code_and_zeros_stay() -> None:
    x = torch.tensor([[0.0, -3.0, 1.5], [0.0, 0.0, 0.0]])
    made = row_codes(x)
    assert made.codes_MK.float().tolist() == [[0.0, -448.0, 224.0], [0.0, 0.0, 0.0]]
    assert made.scales_M1[0].item() == pytest.approx(3 / 448)


def test_rows_may_lie_apart() -> None:
    x = torch.randn(6, 40)
    made, twin = row_codes(x[::2, :32]), row_codes_twin(x[::2, :32])
    torch.testing.assert_close(made.scales_M1, twin.scales_M1, atol=0, rtol=1e-6)
    assert row_codes(x[:0]).codes_MK.shape == (0, 40)


def launch(m: int, k: int) -> None:
    row_codes(torch.empty(m, k, dtype=torch.bfloat16))


@pytest.mark.parametrize("k", [4096, 28672])
def test_the_kernel_compiles_without_spills(compiled, k: int) -> None:
    (kernel,) = compiled(launch, 512, k)
    kernel.check()
