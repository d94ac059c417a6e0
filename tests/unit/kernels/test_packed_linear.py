import pytest
import torch
from torch.nn import functional as F

from tercet.kernels import reference
from tercet.kernels.huge_pages import HUGE_BYTES, in_huge_pages
from tercet.kernels.packed_linear import NativePackedLinear, can_pack, pack, rows_of

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


def make(
    rows: int, columns: int, depth: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + columns + depth)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight = normal(rows, depth).to(dtype), (normal(columns, depth) / depth**0.5).to(dtype)
    return x, weight, normal(columns)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 7, 8, 13, 16, 61])
@pytest.mark.parametrize(("columns", "depth"), [(64, 16), (1, 2), (63, 34), (200, 130), (250, 34)])
def test_kernel_and_twin_compute_the_product(
    dtype: torch.dtype, rows: int, columns: int, depth: int
) -> None:
    x, weight, bias = make(rows, columns, depth, dtype)
    exact = F.linear(x.double(), weight.double(), bias.double())
    tolerance = TOLERANCE[dtype]
    for product in (NativePackedLinear(dtype), reference.packed_linear):
        out = product(x, pack(weight), bias, columns)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), exact, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_a_row_alone_gives_what_it_gives_in_company(dtype: torch.dtype) -> None:
    """To the bit, though its panels are then read side by side."""
    x, weight, bias = make(7, 1000, 70, dtype)
    product, packed = NativePackedLinear(dtype), pack(weight)
    together = product(x, packed, bias, 1000)
    for row in range(7):
        assert torch.equal(product(x[row : row + 1], packed, bias, 1000)[0], together[row])


def test_large_weights_move_and_stay_what_they_are() -> None:
    """Into memory that begins where a large page does."""
    small, large = torch.randn(100), torch.randn(3, 300_001)
    assert in_huge_pages(small) is small
    moved = in_huge_pages(large)
    assert torch.equal(moved, large)
    assert moved.is_contiguous()
    assert moved is large or moved.data_ptr() % HUGE_BYTES == 0


def test_leading_axes_are_kept_and_rows_need_not_be_contiguous() -> None:
    x, weight, _ = make(12, 70, 32, torch.float32)
    x = x.view(3, 4, 32).transpose(0, 1)
    out = NativePackedLinear(torch.float32)(x, pack(weight), None, 70)
    torch.testing.assert_close(out, F.linear(x, weight), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_two_threads_give_the_very_same_result(dtype: torch.dtype) -> None:
    x, weight, bias = make(9, 300, 64, dtype)
    one, two = NativePackedLinear(dtype), NativePackedLinear(dtype, threads=2)
    assert torch.equal(one(x, pack(weight), bias, 300), two(x, pack(weight), bias, 300))


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_rows_can_be_read_back(dtype: torch.dtype) -> None:
    _, weight, _ = make(1, 150, 36, dtype)
    rows = torch.tensor([[0, 63, 64], [149, 7, 7]])
    assert torch.equal(rows_of(pack(weight), rows), weight[rows])


def test_weights_that_do_not_fit_the_layout_are_known() -> None:
    assert can_pack(torch.empty(3, 5))
    assert not can_pack(torch.empty(3, 5, dtype=torch.bfloat16))
    assert not can_pack(torch.empty(3, 4, dtype=torch.float16))
    assert not can_pack(torch.empty(3, 4, device="meta"))


def test_wrong_shapes_are_refused_before_the_kernel_runs() -> None:
    x, weight, bias = make(2, 70, 32, torch.float32)
    product, packed = NativePackedLinear(torch.float32), pack(weight)
    with pytest.raises(AssertionError):
        product(x[:, :-1], packed, None, 70)
    with pytest.raises(AssertionError):
        product(x, packed, bias[:-1], 70)
    with pytest.raises(AssertionError):
        product(x, packed, None, 129)
    with pytest.raises(AssertionError):
        product(x.double(), packed, None, 70)
