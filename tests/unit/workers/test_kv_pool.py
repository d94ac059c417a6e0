import mmap

import numpy as np
import pytest
import torch

from tercet.workers.kv_pool import KvGeometry, KvPool

GEOMETRY = KvGeometry(layers=3, kv_heads=2, head_dim=8, block_tokens=4, dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_block_bytes_are_the_stride_between_blocks(dtype: torch.dtype) -> None:
    geometry = KvGeometry(layers=3, kv_heads=2, head_dim=8, block_tokens=4, dtype=dtype)
    pool = KvPool(geometry, blocks=5)
    assert pool.blocks == 5
    assert pool.tensor.shape == (5, 3, 2, 2, 4, 8)
    assert pool.tensor[1].data_ptr() - pool.tensor[0].data_ptr() == pool.block_bytes
    assert pool.nbytes == 5 * 3 * 2 * 2 * 4 * 8 * dtype.itemsize


def test_each_block_is_one_contiguous_region() -> None:
    pool = KvPool(GEOMETRY, blocks=5)
    assert pool.tensor.is_contiguous()
    assert pool.tensor[3].is_contiguous()
    assert pool.address == pool.tensor.data_ptr()


def test_memory_is_page_aligned_zeroed_and_writable() -> None:
    pool = KvPool(GEOMETRY, blocks=5)
    assert pool.address % mmap.PAGESIZE == 0
    assert pool.generation_address % mmap.PAGESIZE == 0
    assert not pool.tensor.any()
    assert not pool.generations.any()
    pool.tensor[4].fill_(1.0)
    pool.generations[4] += np.uint64(1)
    assert pool.tensor.sum() == pool.tensor[4].numel()
    assert pool.generations.tolist() == [0, 0, 0, 0, 1]


def test_generation_words_are_eight_bytes_each_at_their_address() -> None:
    pool = KvPool(GEOMETRY, blocks=2)
    pool.generations[1] = 7
    word = (np.ctypeslib.ctypes.c_uint64).from_address(pool.generation_address + 8)
    assert word.value == 7


def test_memory_outlives_the_pool_while_a_view_is_held() -> None:
    pool = KvPool(GEOMETRY, blocks=2)
    view = pool.tensor[1]
    view.fill_(3.0)
    del pool
    assert torch.equal(view, torch.full_like(view, 3.0))
