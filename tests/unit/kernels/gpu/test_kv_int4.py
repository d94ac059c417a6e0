import pytest
import torch

from tercet.kernels.gpu.kv_int4 import (
    pack_int4,
    pack_int4_twin,
    unpack_int4,
    unpack_int4_twin,
)
from tercet.kernels.packed_kv import packed_int4_bytes

pytestmark = pytest.mark.usefixtures("on_device")

SHAPES = [(4, 3, 128), (3, 1, 64), (3, 2, 64 * 33)]


def pages(shape: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    """Groups of very unlike size, one of zeros."""
    torch.manual_seed(3)
    x = torch.randn(shape) * torch.logspace(-3, 3, shape[1])[:, None]
    x[1, 0] = 0
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_kernels_make_the_twins_codes_and_read_them_alike(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    source, nbytes, found = pages(shape, dtype), packed_int4_bytes(*shape[1:]), []
    for pack, unpack in (
        (pack_int4, unpack_int4),
        (pack_int4_twin, unpack_int4_twin),
    ):
        packed = torch.zeros((2, nbytes + 8), dtype=torch.uint8)[:, :nbytes]
        target = torch.full_like(source, 7)
        pack(source, torch.tensor([2, 1]), packed)
        unpack(target, torch.tensor([0, 2]), packed)
        found.append((packed, target))
    assert torch.equal(found[0][0], found[1][0])
    # The interpreter cuts bits off where a GPU rounds to bf16.
    rtol = 2**-7 if dtype is torch.bfloat16 else 0
    torch.testing.assert_close(found[0][1], found[1][1], rtol=rtol, atol=0)
    assert (found[0][1][1] == 7).all(), "another block was written"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_error_of_every_element_is_within_the_bound(shape: tuple[int, int, int]) -> None:
    source = pages(shape, torch.float32)
    packed = torch.zeros((3, packed_int4_bytes(*shape[1:])), dtype=torch.uint8)
    target, blocks = torch.zeros_like(source), torch.tensor([0, 1, 2])
    pack_int4(source, blocks, packed)
    unpack_int4(target, blocks, packed)
    x, y = (t[:3].view(3, -1, 64).double() for t in (source, target))
    assert ((x - y).abs() <= x.abs().amax(-1, keepdim=True) / 14 * 1.0001).all()


def test_a_packed_block_is_less_than_three_tenths_of_bf16() -> None:
    assert packed_int4_bytes(8, 1024) / (8 * 1024 * 2) == pytest.approx(0.28125)


def launch() -> None:
    source = torch.empty(2, 8, 8192, dtype=torch.bfloat16)
    packed = torch.empty((2, packed_int4_bytes(8, 8192)), dtype=torch.uint8)
    pack_int4(source, torch.tensor([0, 1]), packed)
    unpack_int4(source, torch.tensor([0, 1]), packed)


def test_the_kernels_compile_without_spilling(compiled) -> None:
    for kernel in compiled(launch):
        kernel.check()
