"""A product of 8-bit floats is that of the plain weight, whichever way its rows go."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tercet.kernels.gpu.gated import Gate, gated_twin
from tercet.kernels.gpu.row_codes import row_codes_twin
from tercet.kernels.gpu.skinny_gemm import GROUP, ROWS_MAX, Scratch
from tercet.workers.gpu.product import Product
from tercet.workers.gpu.weights import CODES_READ_MAX, merged
from tercet.workers.quantised.fp8_weight import CODES, KERNEL_GROUP, Fp8Linear, Fp8Weight

FEW, MANY, LOTS = 3, ROWS_MAX + 7, CODES_READ_MAX * ROWS_MAX + 1
SCRATCH = Scratch(torch.device("cpu"))


def linear(
    rows: int,
    k: int,
    groups: int,
    rounds_inputs: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Fp8Linear:
    """`dtype` is that of the bias, and so of what it can be added to."""
    generator = torch.Generator().manual_seed(rows)
    codes = (torch.randn(rows, k, generator=generator) * 60).clamp(-448, 448).to(CODES)
    scales = torch.rand(groups, rows, generator=generator).T * k**-0.5 / 30
    weight = Fp8Weight(codes, scales, k if groups == 1 else KERNEL_GROUP, rounds_inputs)
    return Fp8Linear(weight, torch.randn(rows, generator=generator).to(dtype))


def product_of(*linears: Fp8Linear) -> tuple[Product, torch.Tensor, torch.Tensor]:
    """With the plain weight and the bias of them all."""
    weight = merged(linears, SCRATCH)
    assert weight is not None
    plain = torch.cat([each.stored.dense(torch.float32) for each in linears])
    bias = torch.cat([each.get_parameter("bias") for each in linears])
    return Product(weight, bias), plain, bias.float()


def test_checkpoints_and_kernels_mean_the_same_groups() -> None:
    assert KERNEL_GROUP == GROUP


@pytest.mark.parametrize("rows", [FEW, MANY, LOTS])
@pytest.mark.parametrize("groups", [1, 2])
def test_exact_inputs_give_the_plain_products(rows: int, groups: int) -> None:
    product, plain, bias = product_of(linear(48, 160, groups), linear(16, 160, groups))
    x, residual = torch.randn(rows, 160), torch.randn(rows, 64)
    expected = F.linear(x, plain, bias)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(product(x), expected, **close)
    torch.testing.assert_close(product.add(x, residual), expected + residual, **close)
    torch.testing.assert_close(
        product.gated(x, Gate.SILU), gated_twin(expected, Gate.SILU), **close
    )


def test_many_rows_are_rounded_with_the_weights_where_the_checkpoint_means_it() -> None:
    product, plain, bias = product_of(linear(64, 160, 1, dtype=torch.bfloat16))
    x = torch.randn(MANY, 160).bfloat16()
    codes, scales = row_codes_twin(x)
    rounded = F.linear(codes.float() * scales, plain, bias)
    exact = F.linear(x.float(), plain, bias)
    out = product(x).float()
    assert out.shape == exact.shape
    close, far = ((out - each).norm() / exact.norm() for each in (rounded, exact))
    assert close < 1e-2 < far < 6e-2


@pytest.mark.parametrize(("groups", "rounds_inputs"), [(1, False), (2, True)])
def test_rows_are_exact_where_the_checkpoint_or_the_library_has_it_so(
    groups: int, rounds_inputs: bool
) -> None:
    product, plain, bias = product_of(linear(64, 160, groups, rounds_inputs, dtype=torch.bfloat16))
    x = torch.randn(MANY, 160).bfloat16()
    exact = F.linear(x.float(), plain, bias)
    assert (product(x).float() - exact).norm() / exact.norm() < 1e-2


def test_layers_keep_views_of_what_was_merged() -> None:
    first, second = linear(48, 160, 2), linear(16, 160, 2)
    before = [each.stored.dense(torch.float32) for each in (first, second)]
    assert merged([first, second], SCRATCH) is not None
    assert first.scales.stride() == (1, 64)
    assert first.weight.untyped_storage().data_ptr() == second.weight.untyped_storage().data_ptr()
    for each, plain in zip((first, second), before, strict=True):
        assert torch.equal(each.stored.dense(torch.float32), plain)


@pytest.mark.parametrize(
    "others",
    [nn.Linear(160, 16), nn.Identity(), linear(16, 160, 1)],
    ids=["plain", "else", "groups"],
)
def test_layers_of_several_kinds_are_not_merged(others: nn.Module) -> None:
    assert merged([linear(48, 160, 2), others], SCRATCH) is None
