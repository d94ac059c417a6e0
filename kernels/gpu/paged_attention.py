"""Paged attention out of the kernels here: `PagedAttention` for NVIDIA GPUs.

Legend: N query rows of all requests, H query heads, G key/value heads, D head dim, B pages, T tokens of a page.

Keys and values are written into pages; then requests with few rows are served by `decode_attention`, the others by
`fresh_attention` where none of them has a context, else by `chunk_attention`. Which of the first and the others depends on a
request alone. The twin is `reference.paged_attention`.
"""

from functools import cached_property

import numpy as np
import torch

from tercet.kernels.gpu.attention_tuning import AttentionTuning, attention_tuning
from tercet.kernels.gpu.chunk_attention import chunk_attention
from tercet.kernels.gpu.decode_attention import TENSOR_CORE_ROWS, decode_attention
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.fresh_attention import can_fetch, fresh_attention
from tercet.kernels.gpu.kv_write import kv_write
from tercet.kernels.gpu.query_tiles import QueryTiles, query_tiles
from tercet.kernels.gpu.task_map import DecodeTasks, decode_tasks
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule


class TritonPagedAttention:
    """Enqueues on the current stream. One of these serves all layers, and one thread at a time may call it.

    What a batch needs on the device is made when the first layer asks with it, and kept until the next batch.
    """

    def __init__(self, tuning: AttentionTuning, programs: int) -> None:
        self._tuning, self._programs = tuning, programs
        self._step: _Step | None = None

    @classmethod
    def on(cls, device: torch.device, dtype: torch.dtype, head_dim: int) -> "TritonPagedAttention":
        """Tuned for a GPU."""
        tuning = attention_tuning(device, head_dim, dtype.itemsize)
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        return cls(tuning, processors * tuning.decode.programs_per_sm)

    def __call__(
        self,
        q_NHD: torch.Tensor,
        k_NGD: torch.Tensor,
        v_NGD: torch.Tensor,
        pages_B2GTD: torch.Tensor,
        batch: PagedBatch,
        rule: SoftmaxRule,
    ) -> torch.Tensor:
        if self._step is None or self._step.host is not batch:
            group = q_NHD.shape[1] // k_NGD.shape[1]
            self._step = _Step(batch, q_NHD.device, group, self._tuning, self._programs)
        step, tuning = self._step, self._tuning
        kv_write(k_NGD, v_NGD, pages_B2GTD, step.batch)
        out_NHD = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
        if step.rows:
            tasks = step.tasks(k_NGD.shape[1], rule.window)
            decode_attention(q_NHD, pages_B2GTD, step.batch, tasks, rule, out_NHD, tuning.decode)
        if not step.has_long:
            return out_NHD
        if step.all_fresh and can_fetch(k_NGD) and can_fetch(v_NGD):
            fresh_attention(
                q_NHD, k_NGD, v_NGD, step.batch, step.fresh_tiles, rule, out_NHD, tuning.fresh
            )
        else:
            chunk_attention(
                q_NHD, pages_B2GTD, step.batch, step.chunk_tiles, rule, out_NHD, tuning.chunk
            )
        return out_NHD


class _Step:
    """What all layers share while they compute one batch."""

    def __init__(
        self, host: PagedBatch, device: torch.device, group: int, tuning: AttentionTuning,
        programs: int,
    ) -> None:  # fmt: skip
        self.host, self._group, self._tuning, self._programs = host, group, tuning, programs
        self.batch = DeviceBatch.of(host, device)
        self._few = max(1, TENSOR_CORE_ROWS // group)
        is_short = host.lengths <= self._few
        self.rows = int(host.lengths[is_short].max(initial=0))
        self.has_long = not is_short.all()
        self.all_fresh = not host.contexts[~is_short].any()
        ends = (host.contexts + host.lengths)[is_short]
        self._splits = int(np.sum(tuning.decode.splits.counts(ends)))
        self._tasks: dict[int, DecodeTasks] = {}

    def tasks(self, kv_heads: int, window: int) -> DecodeTasks:
        """Layers with unlike windows see unlike splits of the same requests."""
        if window not in self._tasks:
            self._tasks[window] = decode_tasks(
                self.batch, kv_heads, window=window, tile=self._tuning.decode.tile,
                splits=self._tuning.decode.splits, programs=self._programs,
                splits_max=self._splits, rows=self.rows,
            )  # fmt: skip
        return self._tasks[window]

    @cached_property
    def fresh_tiles(self) -> QueryTiles:
        return query_tiles(self.batch, self._tuning.fresh.rows // self._group, self._few)

    @cached_property
    def chunk_tiles(self) -> QueryTiles:
        return query_tiles(self.batch, self._tuning.chunk.rows // self._group, self._few)
