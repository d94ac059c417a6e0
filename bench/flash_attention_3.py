"""FlashAttention-3 beside ours, where its library is: FLASH_ATTENTION_3 names the `_vllm_fa3_C.abi3.so` of a vLLM wheel."""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from gpu_measure import Machine, Work
from kernel_sizes import Sizes, normal

VARIABLE = "FLASH_ATTENTION_3"


@cache
def library() -> Any | None:
    """None where the variable is not set. Raises OSError if the library does not fit this torch."""
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    torch.ops.load_library(path)
    return torch.ops._vllm_fa3_C


def decode_works(machine: Machine, sizes: Sizes, lengths: list[int], copies: int) -> list[Work]:
    """One layer over the last row of each request, scheduled beforehand as vLLM does it once a step; none without a library."""
    fa3 = library()
    if fa3 is None:
        return []
    places = [-(-length // sizes.page) for length in lengths]
    order = torch.randperm(sum(places) * copies)
    shape = (len(order), sizes.page, sizes.kv_heads, sizes.dim)
    k, v = (normal(machine, *shape, dtype=sizes.dtype) for _ in range(2))
    lengths_R = torch.tensor(lengths, dtype=torch.int32, device=machine.device)
    starts = torch.arange(len(lengths) + 1, dtype=torch.int32, device=machine.device)
    metadata = fa3.get_scheduler_metadata(
        len(lengths), 1, max(lengths), sizes.heads, sizes.kv_heads, sizes.dim, sizes.dim, sizes.dtype, lengths_R,
        starts, None, None, None, None, sizes.page, 0, True, -1, -1, False, 0, None, 0,
    )  # fmt: skip

    def work(blocks: Sequence[int]) -> Work:
        table = torch.zeros(len(lengths), max(places), dtype=torch.int32)
        parts = torch.tensor(blocks).split(places)
        for request, part in enumerate(parts):
            table[request, : len(part)] = part
        table = table.to(machine.device)
        q = normal(machine, len(lengths), sizes.heads, sizes.dim, dtype=sizes.dtype)
        return lambda: _forward(fa3, sizes, q, k, v, starts, None, lengths_R, 1, max(lengths), table, metadata)  # fmt: skip

    return [work(part.tolist()) for part in order.split(sum(places))]


def prefill_work(machine: Machine, sizes: Sizes, requests: int, rows: int) -> Work | None:
    """Causal, over dense keys and values of prompts one behind the other."""
    fa3 = library()
    if fa3 is None:
        return None
    q = normal(machine, requests * rows, sizes.heads, sizes.dim, dtype=sizes.dtype)
    k, v = (normal(machine, requests * rows, sizes.kv_heads, sizes.dim, dtype=sizes.dtype) for _ in range(2))  # fmt: skip
    starts = torch.arange(requests + 1, dtype=torch.int32, device=machine.device) * rows
    return lambda: _forward(fa3, sizes, q, k, v, starts, starts, None, rows, rows, None, None)


def _forward(
    fa3: Any,
    sizes: Sizes,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    q_starts: torch.Tensor,
    k_starts: torch.Tensor | None,
    lengths: torch.Tensor | None,
    rows_max: int,
    length_max: int,
    table: torch.Tensor | None,
    metadata: torch.Tensor | None,
) -> object:
    return fa3.fwd(
        q, k, v, None, None, None, None, q_starts, k_starts, None, None, lengths, rows_max, length_max, table,
        None, None, None, None, None, None, None, None, sizes.dim**-0.5, True, -1, -1, 0.0, True, metadata, 0,
        None, 0, None, 1, 0, None,
    )  # fmt: skip
