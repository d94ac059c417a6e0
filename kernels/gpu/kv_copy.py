"""KV blocks gathered into contiguous memory, and scattered from there, as they are: so that a transfer is one range.

Legend: B blocks of a pool, N blocks to copy, G groups of a block, E elements of a group, X bytes of a row of staging
memory. A pool may be cut to some layers of every block. The twins are `gather_kv_twin` and `scatter_kv_twin`.
"""

import torch
import triton
import triton.language as tl

WORD = torch.int32
WORDS_OF_A_PROGRAM = 4096


@triton.jit
def copy_kernel(
    pages, blocks, staging, page_stride, staging_stride, W, TILE: tl.constexpr, GATHER: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * TILE + tl.arange(0, TILE)
    page = pages + tl.load(blocks + n) * page_stride + at
    row = staging + n * staging_stride + at
    if GATHER:
        tl.store(row, tl.load(page, mask=at < W), mask=at < W)
    else:
        tl.store(page, tl.load(row, mask=at < W), mask=at < W)


def gather_kv(pages_BGE: torch.Tensor, blocks_N: torch.Tensor, staging_NX: torch.Tensor) -> None:
    """Copies blocks into rows of staging memory, in the order of `blocks_N`. A block is some multiple of 4 bytes."""
    _copy(pages_BGE, blocks_N, staging_NX, gather=True)


def scatter_kv(pages_BGE: torch.Tensor, blocks_N: torch.Tensor, staging_NX: torch.Tensor) -> None:
    """Copies rows of staging memory into blocks, all of them different."""
    _copy(pages_BGE, blocks_N, staging_NX, gather=False)


def _copy(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, staging_NX: torch.Tensor, *, gather: bool
) -> None:
    assert blocks_N.dtype == torch.int64, blocks_N.dtype
    assert blocks_N.is_contiguous(), blocks_N.stride()
    pages_BW, staging_NW = _words(pages_BGE), _words(staging_NX[:, None])
    words = pages_BW.shape[1]
    assert staging_NX.dtype == torch.uint8, staging_NX.dtype
    assert staging_NW.shape == (len(blocks_N), words), (staging_NX.shape, pages_BGE.shape)
    if len(blocks_N):
        copy_kernel[len(blocks_N), triton.cdiv(words, WORDS_OF_A_PROGRAM)](
            pages_BW, blocks_N, staging_NW, pages_BW.stride(0), staging_NW.stride(0), words,
            TILE=WORDS_OF_A_PROGRAM, GATHER=gather, num_warps=8,
        )  # fmt: skip


def _words(tensor_BGE: torch.Tensor) -> torch.Tensor:
    """The same memory as words; only blocks may lie apart."""
    flat = tensor_BGE.flatten(1)
    assert flat.data_ptr() == tensor_BGE.data_ptr(), tensor_BGE.stride()
    assert flat.stride(0) == tensor_BGE.stride(0), tensor_BGE.stride()
    return flat.view(WORD)


def gather_kv_twin(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, staging_NX: torch.Tensor
) -> None:
    """The twin."""
    staging_NX.copy_(pages_BGE[blocks_N].flatten(1).view(torch.uint8))


def scatter_kv_twin(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, staging_NX: torch.Tensor
) -> None:
    """The twin."""
    kind = pages_BGE.dtype
    pages_BGE[blocks_N] = staging_NX.contiguous().view(kind).view(-1, *pages_BGE.shape[1:])
