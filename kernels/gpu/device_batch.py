"""A step's requests where kernels can see them: `PagedBatch` on the device, uploaded once and read by every layer.

Legend: N rows, R requests, W places of a block table. All int32. Whoever replays a CUDA graph keeps one of these in fixed
memory and writes each step into it; a request that stands for none has no rows.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tercet.kernels.paged_batch import PagedBatch

ALIGNED = 4
"""Elements: kernels are specialised on 16 bytes, and would be compiled anew where an array begins elsewhere."""


@dataclass(frozen=True, slots=True)
class DeviceBatch:
    """See `PagedBatch` for what each says. `positions_N` is negative in rows that stand for none."""

    query_starts_R1: torch.Tensor
    contexts_R: torch.Tensor
    positions_N: torch.Tensor
    requests_N: torch.Tensor
    tables_RW: torch.Tensor

    @classmethod
    def of(cls, batch: PagedBatch, device: torch.device) -> "DeviceBatch":
        """In one copy."""
        arrays = (
            batch.query_starts, batch.contexts, batch.positions, batch.row_requests, batch.tables,
        )  # fmt: skip
        begins = np.cumsum([0, *(-(-array.size // ALIGNED) * ALIGNED for array in arrays)])
        flat = np.zeros(begins[-1], dtype=np.int32)
        for begin, array in zip(begins, arrays, strict=False):
            flat[begin : begin + array.size] = array.ravel()
        there = torch.from_numpy(flat).to(device, non_blocking=True)
        parts = (
            there[begin : begin + array.size].view(array.shape)
            for begin, array in zip(begins.tolist(), arrays, strict=False)
        )
        return cls(*parts)

    @property
    def requests(self) -> int:
        return len(self.contexts_R)

    @property
    def rows(self) -> int:
        return len(self.positions_N)
