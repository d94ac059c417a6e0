"""The counts that the other compile tests rely on are there when they should be, and only then."""

import torch
import triton
import triton.language as tl


@triton.jit
def product(a, b, c, DIM: tl.constexpr):
    at = tl.arange(0, DIM)[:, None] * DIM + tl.arange(0, DIM)[None, :]
    tl.store(c + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@triton.jit
def hoarder(a, b, DIM: tl.constexpr):
    at = tl.arange(0, DIM)
    x = tl.load(a + at)
    tl.store(b + at, x / tl.sum(x))


def launch_product(dim: int, warps: int) -> None:
    a, b = (torch.empty(dim, dim, dtype=torch.bfloat16) for _ in range(2))
    product[1,](a, b, torch.empty(dim, dim), dim, num_warps=warps)


def launch_hoarder(dim: int) -> None:
    hoarder[1,](torch.empty(dim), torch.empty(dim), dim, num_warps=1)


def test_large_products_compile_to_wgmma_and_small_ones_to_mma(compiled) -> None:
    (large,), (small,) = compiled(launch_product, 64, 4), compiled(launch_product, 16, 1)
    large.check()
    assert large.name == "product"
    assert large.wgmma
    assert not large.mma
    assert small.mma
    assert not small.wgmma
    assert 16 < small.registers < 255


def test_a_kernel_that_keeps_too_much_is_seen_to_spill(compiled) -> None:
    (much,), (little,) = compiled(launch_hoarder, 8192), compiled(launch_hoarder, 1024)
    assert much.spills
    assert not little.spills
