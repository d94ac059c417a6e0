import pytest
import torch

from tercet.kernels.gpu.kv_copy import (
    gather_kv,
    gather_kv_twin,
    scatter_kv,
    scatter_kv_twin,
)

pytestmark = pytest.mark.usefixtures("on_device")

BLOCKS = [4, 0, 3]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("layers", [slice(None), slice(1, 3)])
def test_blocks_come_back_from_staging_memory_as_they_were(
    dtype: torch.dtype, layers: slice
) -> None:
    """Also some layers of them, and whatever the size."""
    blocks = torch.tensor(BLOCKS)
    pool = torch.randn(5, 4, 3000).mul(50).to(dtype)[:, layers]
    nbytes = pool[0].numel() * dtype.itemsize
    mine, twin = (torch.zeros(3, nbytes + 64, dtype=torch.uint8)[:, :nbytes] for _ in range(2))
    gather_kv(pool, blocks, mine)
    gather_kv_twin(pool, blocks, twin)
    assert torch.equal(mine, twin)
    there, here = (torch.zeros(5, 4, 3000, dtype=dtype)[:, layers] for _ in range(2))
    scatter_kv(there, blocks.flip(0), mine)
    scatter_kv_twin(here, blocks.flip(0), twin)
    assert torch.equal(there, here)
    assert torch.equal(there[blocks.flip(0)], pool[blocks])
    assert not there[[1, 2]].any()


def test_memory_that_is_not_contiguous_within_a_block_is_refused() -> None:
    pool, staging = torch.zeros(5, 4, 8)[:, :, :4], torch.zeros(3, 64, dtype=torch.uint8)
    with pytest.raises(AssertionError):
        gather_kv(pool, torch.tensor(BLOCKS), staging)


def launch() -> None:
    pool = torch.empty(2, 16, 8192, dtype=torch.bfloat16)
    staging = torch.empty(2, 16 * 8192 * 2, dtype=torch.uint8)
    gather_kv(pool, torch.tensor([0, 1]), staging)
    scatter_kv(pool, torch.tensor([0, 1]), staging)


def test_the_kernels_compile_without_spilling(compiled) -> None:
    for kernel in compiled(launch):
        kernel.check()
