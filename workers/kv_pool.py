"""The memory that keys and values live in: one tensor and one array of generation words, allocated once and never freed.

Knows shapes and addresses. Which block belongs to whom is `block_pool`'s business; who reads it from afar is `transfer`'s.
A reader that pulls a block and afterwards finds the generation word it expected knows that nothing was overwritten.
"""

import contextlib
import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

HUGE_PAGE_BYTES = 2 * 2**20


@dataclass(frozen=True, slots=True)
class KvGeometry:
    """The shape of one block. Two pools with equal geometry can copy blocks byte for byte."""

    layers: int
    kv_heads: int
    head_dim: int
    block_tokens: int
    dtype: torch.dtype

    @property
    def block_shape(self) -> tuple[int, int, int, int, int]:
        """`[layers, 2 (keys, values), kv_heads, block_tokens, head_dim]`."""
        return (self.layers, 2, self.kv_heads, self.block_tokens, self.head_dim)

    @property
    def block_bytes(self) -> int:
        elements = self.layers * 2 * self.kv_heads * self.block_tokens * self.head_dim
        return elements * self.dtype.itemsize


class KvPool:
    """`tensor` is `[blocks, layers, 2, kv_heads, block_tokens, head_dim]`, so that one block is one contiguous region.

    Host memory is page-aligned and resident from the start, because registering it with a NIC pins it anyway and a
    first touch in the middle of a step would cost a page fault. The generation words stay on the host on every device.
    """

    def __init__(
        self, geometry: KvGeometry, blocks: int, device: torch.device | None = None
    ) -> None:
        assert blocks >= 1, f"a pool needs blocks ({blocks=})"
        self.geometry = geometry
        self.device = device or torch.device("cpu")
        shape = (blocks, *geometry.block_shape)
        if self.device.type == "cpu":
            memory = zeroed_pages(blocks * geometry.block_bytes)
            self.tensor = torch.frombuffer(memory, dtype=geometry.dtype)[
                : blocks * geometry.block_bytes // geometry.dtype.itemsize
            ].view(shape)
        else:
            self.tensor = torch.zeros(shape, dtype=geometry.dtype, device=self.device)
        self.generations: npt.NDArray[np.uint64] = np.frombuffer(
            zeroed_pages(blocks * 8), dtype=np.uint64, count=blocks
        )

    @property
    def blocks(self) -> int:
        return self.tensor.shape[0]

    @property
    def block_bytes(self) -> int:
        return self.geometry.block_bytes

    @property
    def nbytes(self) -> int:
        return self.blocks * self.block_bytes

    @property
    def address(self) -> int:
        """Address of block 0; block `i` lies `i * block_bytes` behind it."""
        return self.tensor.data_ptr()

    @property
    def generation_address(self) -> int:
        """Address of block 0's generation word; 8 bytes each, in host memory."""
        return int(self.generations.ctypes.data)


def zeroed_pages(nbytes: int) -> mmap.mmap:
    """Anonymous zeroed memory, page-aligned and resident; it lives as long as any tensor or array over it.

    Huge pages, where the system grants them on request, spare attention 5 % of its time at long contexts.
    """
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if nbytes >= HUGE_PAGE_BYTES:
        with contextlib.suppress(OSError):  # a kernel built without them: it was only a wish
            memory.madvise(mmap.MADV_HUGEPAGE)
    np.frombuffer(memory, dtype=np.uint8).fill(0)
    return memory
