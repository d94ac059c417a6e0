import pytest
import torch

from tercet.kernels import reference
from tercet.kernels.rms_norm import NativeRmsNorm


@pytest.mark.parametrize("shape", [(1, 1, 64), (3, 5, 7), (2, 24), (130, 513), (1, 2, 4, 16)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_kernel_agrees_with_its_twin(
    shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x, scale = 3 * torch.randn(shape).to(dtype), torch.randn(shape[-1])
    out = NativeRmsNorm(dtype)(x, scale, 1e-5)
    twin = reference.rms_norm(x, scale, 1e-5)
    assert out.dtype == dtype
    torch.testing.assert_close(out, twin, atol=tolerance, rtol=tolerance)


def test_rows_need_not_be_contiguous() -> None:
    x, scale = torch.randn(4, 6, 32).transpose(0, 1), torch.randn(32)
    twin = reference.rms_norm(x, scale, 1e-6)
    torch.testing.assert_close(NativeRmsNorm(torch.float32)(x, scale, 1e-6), twin)


def test_a_row_of_zeros_stays_zero_and_a_nan_stays_a_nan() -> None:
    x = torch.zeros(2, 16, dtype=torch.bfloat16)
    x[1, 3] = torch.nan
    out = NativeRmsNorm(torch.bfloat16)(x, torch.ones(16), 1e-6)
    assert not out[0].any()
    assert out[1].isnan().all()


@pytest.mark.parametrize("shape", [(1, 64), (3, 7), (40, 513)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_added_before_stays_and_rounds_as_torch_rounds(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, more = torch.randn(2, *shape).to(dtype).unbind()
    scale, total = torch.randn(shape[1]), x + more
    norm = NativeRmsNorm(dtype, threads=3)
    out = norm.add(x, more, scale, 1e-5)
    assert torch.equal(x, total)
    assert torch.equal(out, NativeRmsNorm(dtype)(total, scale, 1e-5))
