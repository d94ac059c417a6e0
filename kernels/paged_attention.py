"""Paged attention: picks the fastest implementation there is for a device and type, and launches the C++ one.

Legend: N query rows of all requests, H query heads, G key/value heads, D head dim, B pages, T tokens of a page.
The plain-torch twin is `reference.paged_attention`; `paged_attention.cpp` holds the kernel for CPUs,
`gpu/paged_attention.py` the ones for GPUs.
"""

import ctypes
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from tercet.kernels import reference
from tercet.kernels.compiler import CompilerUnavailable, load_library
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

SOURCE = Path(__file__).with_name("paged_attention.cpp")
GROUP_MAX = 64
HEAD_DIM_MAX = 256
SYMBOLS = {
    torch.float32: "tercet_paged_attention_f32",
    torch.bfloat16: "tercet_paged_attention_bf16",
}

log = logging.getLogger(__name__)


class PagedAttention(Protocol):
    """Writes the rows' keys and values into their pages, then attends; returns `[N, H, D]`."""

    def __call__(
        self,
        q_NHD: torch.Tensor,
        k_NGD: torch.Tensor,
        v_NGD: torch.Tensor,
        pages_B2GTD: torch.Tensor,
        batch: PagedBatch,
        rule: SoftmaxRule,
    ) -> torch.Tensor: ...


def best_paged_attention(
    device: torch.device, dtype: torch.dtype, head_dim: int, group: int, threads: int
) -> PagedAttention:
    """Triton on a GPU, the C++ kernel on a CPU, each where it fits (`group` is H / G), else the twin."""
    if device.type == "cuda" and head_dim <= HEAD_DIM_MAX and group <= GROUP_MAX:
        from tercet.kernels.gpu.paged_attention import TritonPagedAttention  # noqa: PLC0415 -- GPUs only

        return TritonPagedAttention.on(device, dtype, head_dim)
    fits = (
        dtype in SYMBOLS and head_dim % 8 == 0 and head_dim <= HEAD_DIM_MAX and group <= GROUP_MAX
    )
    if device.type != "cpu" or not fits:
        return reference.paged_attention
    try:
        return NativePagedAttention(dtype, threads)
    except CompilerUnavailable as exc:
        log.warning("paged attention runs in plain torch, several times slower: %s", exc)
        return reference.paged_attention


class _Batch(ctypes.Structure):
    """Mirror of `Batch` in the source, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "out", "pages")),
        *((name, ctypes.c_void_p) for name in ("query_starts", "contexts", "tables", "sinks")),
        *((name, ctypes.c_int64) for name in ("q_row", "q_head", "k_row", "k_head", "v_row")),
        *((name, ctypes.c_int64) for name in ("v_head", "page_stride", "value_offset")),
        *((name, ctypes.c_int64) for name in ("page_head", "table_width")),
        *((name, ctypes.c_int32) for name in ("requests", "q_heads", "kv_heads", "head_dim")),
        *((name, ctypes.c_int32) for name in ("page_tokens", "window", "threads")),
        *((name, ctypes.c_float) for name in ("scale", "softcap")),
    )


class AttentionMemory(NamedTuple):
    """Addresses of one step's rows, and how far apart rows and heads are, in elements."""

    q: int
    k: int
    v: int
    out: int
    q_row: int
    q_head: int
    k_row: int
    k_head: int
    v_row: int
    v_head: int


class LayerMemory(NamedTuple):
    """Addresses of one layer's pages and of its rule's sinks, and the rule, which keeps these."""

    pages: int
    sinks: int | None
    rule: SoftmaxRule

    @classmethod
    def of(cls, pages_B2GTD: torch.Tensor, rule: SoftmaxRule) -> "LayerMemory":
        sinks = None if rule.sinks is None else rule.sinks.data_ptr()
        return cls(pages_B2GTD.data_ptr(), sinks, rule)


class NativePagedAttention:
    """The C++ kernel for one element type. Raises CompilerUnavailable when it cannot be built."""

    def __init__(self, dtype: torch.dtype, threads: int = 1, cache: Path | None = None) -> None:
        self.dtype, self.threads = dtype, threads
        self._kernel = getattr(load_library(SOURCE, cache), SYMBOLS[dtype])
        self._kernel.restype = None
        self._kernel.argtypes = [ctypes.c_void_p]

    def __call__(
        self,
        q_NHD: torch.Tensor,
        k_NGD: torch.Tensor,
        v_NGD: torch.Tensor,
        pages_B2GTD: torch.Tensor,
        batch: PagedBatch,
        rule: SoftmaxRule,
    ) -> torch.Tensor:
        rows, heads, dim = q_NHD.shape
        self._check(q_NHD, k_NGD, v_NGD, pages_B2GTD, batch, rule)
        out_NHD = torch.empty((rows, heads, dim), dtype=self.dtype)
        inputs = (q_NHD, k_NGD, v_NGD)
        memory = AttentionMemory(
            *(t.data_ptr() for t in (*inputs, out_NHD)),
            *(stride for t in inputs for stride in t.stride()[:2]),
        )
        attend = self.bind(memory, (heads, k_NGD.shape[1], dim), pages_B2GTD, batch)
        attend(LayerMemory.of(pages_B2GTD, rule))
        return out_NHD

    def bind(
        self,
        memory: AttentionMemory,
        heads: tuple[int, int, int],
        pages_B2GTD: torch.Tensor,
        batch: PagedBatch,
    ) -> Callable[[LayerMemory], None]:
        """Attention of one step in any layer, for whoever vouches for the memory; `heads` is `(H, G, D)`.

        Pages of all layers have the strides of `pages_B2GTD`.
        """
        page, keys_to_values, page_head, _, _ = pages_B2GTD.stride()
        arguments = _Batch(
            *(*memory[:4], None),
            *(a.ctypes.data for a in (batch.query_starts, batch.contexts, batch.tables)),
            *(None, *memory[4:]),
            *(page, keys_to_values, page_head, batch.tables.shape[1]),
            *(batch.requests, *heads, batch.page_tokens),
            *(0, self.threads, 0.0, 0.0),
        )
        kernel, at = self._kernel, ctypes.addressof(arguments)

        def attend(layer: LayerMemory, _alive: object = batch) -> None:
            arguments.pages, arguments.sinks, rule = layer
            arguments.scale, arguments.softcap = rule.scale, rule.softcap
            arguments.window = rule.window
            kernel(at)

        return attend

    def _check(
        self,
        q_NHD: torch.Tensor,
        k_NGD: torch.Tensor,
        v_NGD: torch.Tensor,
        pages_B2GTD: torch.Tensor,
        batch: PagedBatch,
        rule: SoftmaxRule,
    ) -> None:
        """What the kernel takes for granted; a wrong pointer is not an exception but a crash."""
        rows, heads, dim = q_NHD.shape
        group_heads = k_NGD.shape[1]
        for tensor in (q_NHD, k_NGD, v_NGD, pages_B2GTD):
            assert tensor.dtype == self.dtype, tensor.dtype
            assert tensor.stride(-1) == 1, tensor.stride()
        assert k_NGD.shape == v_NGD.shape == (rows, group_heads, dim), (k_NGD.shape, v_NGD.shape)
        assert pages_B2GTD.shape[1:] == (2, group_heads, batch.page_tokens, dim), pages_B2GTD.shape
        assert pages_B2GTD.stride(3) == dim, pages_B2GTD.stride()
        assert rows == batch.rows, (rows, batch.rows)
        assert heads % group_heads == 0, (heads, group_heads)
        assert heads // group_heads <= GROUP_MAX, (heads, group_heads)
        assert dim <= HEAD_DIM_MAX, dim
        if rule.sinks is not None:
            assert rule.sinks.dtype == torch.float32, rule.sinks.dtype
            assert rule.sinks.shape == (heads,), rule.sinks.shape
