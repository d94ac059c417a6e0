import pytest
import torch

from tercet.kernels import reference
from tercet.kernels.gpu.residual_norm import residual_norm, residual_norm_twin, rms_norm

pytestmark = pytest.mark.usefixtures("on_device")

# The interpreter cuts bits off where a GPU rounds to bf16: up to two units in the last place.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
SHAPES = [(1, 64), (3, 7), (2, 513)]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_norm_agrees_with_its_twin(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x, scale = 3 * torch.randn(shape).to(dtype), torch.randn(shape[1])
    twin = reference.rms_norm(x, scale, 1e-5)
    out, tolerance = rms_norm(x, scale, 1e-5), TOLERANCE[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out, twin, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES)
def test_norm_and_residual_agree_with_their_twins(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x, residual = torch.randn(shape).to(dtype), 3 * torch.randn(shape).to(dtype)
    scale = torch.randn(shape[1], dtype=dtype)
    mine = residual_norm(x, residual, scale, 1e-5)
    twin = residual_norm_twin(x, residual, scale, 1e-5)
    for a, b in zip(mine, twin, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(a, b, atol=2 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])


def test_the_norm_is_that_of_the_sum_as_it_is_kept() -> None:
    """What fp16 loses of a sum must be missing in both answers."""
    x = torch.full((1, 4), 0.25, dtype=torch.float16)
    residual = torch.tensor([[1024.0, 1, 2, 3]], dtype=torch.float16)
    normed, total = residual_norm(x, residual, torch.ones(4), 0.0)
    assert total[0, 0] == 1024
    again = rms_norm(total, torch.ones(4), 0.0)
    assert torch.equal(normed, again)


def test_rows_may_lie_apart_and_a_row_does_not_feel_the_batch() -> None:
    torch.manual_seed(1)
    wide, scale = torch.randn(5, 3, 40), torch.randn(40)
    x, residual = wide[:, 1], wide[:, 2]
    assert not x.is_contiguous()
    all_rows = residual_norm(x, residual, scale, 1e-6)
    for n in range(5):
        alone = residual_norm(x[n : n + 1], residual[n : n + 1], scale, 1e-6)
        assert torch.equal(alone.normed_ND[0], all_rows.normed_ND[n])
        assert torch.equal(alone.sum_ND[0], all_rows.sum_ND[n])


def test_zeros_stay_zeros_a_nan_stays_in_its_row_and_no_rows_are_no_work() -> None:
    x = torch.zeros(2, 16)
    x[1, 3] = torch.nan
    out = rms_norm(x, torch.ones(16), 1e-6)
    assert not out[0].any()
    assert out[1].isnan().all()
    assert rms_norm(torch.empty(0, 16), torch.ones(16), 1e-6).shape == (0, 16)


def launch(depth: int) -> None:
    x, scale = torch.empty(2, depth, dtype=torch.bfloat16), torch.empty(depth)
    residual_norm(x, x, scale, 1e-6)


@pytest.mark.parametrize("depth", [896, 8192])
def test_the_kernel_compiles_without_spilling(compiled, depth: int) -> None:
    (kernel,) = compiled(launch, depth)
    kernel.check()
