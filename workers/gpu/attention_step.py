"""One step's requests as attention on the device sees them, and what all layers share in that step.

Legend: N rows, H query heads, G key/value heads, D head dim, B pages, T tokens of a page, R requests, W places of a table.
"""

from dataclasses import dataclass

import numpy as np
import torch

from tercet.kernels.gpu.attention_tuning import AttentionTuning, PrefillTuning
from tercet.kernels.gpu.chunk_attention import chunk_attention
from tercet.kernels.gpu.decode_attention import TENSOR_CORE_ROWS, decode_attention
from tercet.kernels.gpu.decode_rows import DecodeRows
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.fresh_attention import can_fetch, fresh_attention
from tercet.kernels.gpu.query_tiles import QueryTiles, query_tiles
from tercet.kernels.gpu.rope_and_write import Places
from tercet.kernels.gpu.task_map import DecodeTasks, decode_tasks
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

FRESH_ROWS_MIN = 1024
"""For fewer rows, telling TMA where keys and values lie takes longer than fetching them so saves."""


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """How a deployment attends."""

    tuning: AttentionTuning
    programs: int
    """Of the persistent grid of decoding."""
    heads: int
    kv_heads: int

    @property
    def few(self) -> int:
        """Requests with so many rows at most go through decode attention."""
        return max(1, TENSOR_CORE_ROWS // (self.heads // self.kv_heads))

    def splits(self, ends: np.typing.NDArray[np.integer]) -> int:
        """Items of work that requests of these lengths make."""
        return int(np.sum(self.tuning.decode.splits.counts(ends)))


class AttentionStep:
    """What is in it is enqueued when the first layer asks. Requests of up to `rows` rows are there for decoding."""

    def __init__(
        self,
        plan: AttentionPlan,
        batch: DeviceBatch,
        turns_1N: torch.Tensor,
        *,
        rows: int,
        splits_max: int,
        has_long: bool,
        is_fresh: bool = False,
    ) -> None:
        self._plan, self._batch = plan, batch
        self._rows, self._splits_max, self._has_long = rows, splits_max, has_long
        self.is_fresh = is_fresh
        """No request of many rows has anything before them: their keys need not be fetched from pages."""
        self._tasks: dict[int, DecodeTasks] = {}
        self._query_tiles: QueryTiles | None = None
        self.places = Places(batch.positions_N, batch.requests_N, batch.tables_RW, turns_1N)

    @classmethod
    def of(cls, plan: AttentionPlan, host: PagedBatch, device: torch.device) -> "AttentionStep":
        """For any batch, told by the host."""
        batch = DeviceBatch.of(host, device)
        is_short = host.lengths <= plan.few
        ends = (host.contexts + host.lengths)[is_short]
        return cls(
            plan,
            batch,
            batch.positions_N[None],
            rows=int(host.lengths[is_short].max(initial=0)),
            splits_max=plan.splits(ends),
            has_long=not is_short.all(),
            is_fresh=host.rows >= FRESH_ROWS_MIN and not host.contexts[~is_short].any(),
        )

    @classmethod
    def decoding(
        cls, plan: AttentionPlan, rows: DecodeRows, steps_R1: torch.Tensor, splits_max: int
    ) -> "AttentionStep":
        """One row a request, in memory that stays where it is. `steps_R1` counts from 0."""
        batch = DeviceBatch(steps_R1, rows.context_R, rows.position_R, steps_R1[:-1], rows.table_RW)
        turns_1N = rows.context_R[None]
        return cls(plan, batch, turns_1N, rows=1, splits_max=splits_max, has_long=False)

    def attend(
        self,
        q_NHD: torch.Tensor,
        k_NGD: torch.Tensor,
        v_NGD: torch.Tensor,
        pages_B2GTD: torch.Tensor,
        rule: SoftmaxRule,
    ) -> torch.Tensor:
        """`[N, H, D]`; the rows' keys and values are in their pages, and, where the step is fresh, in k and v as well."""
        out_NHD = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
        tuning = self._plan.tuning
        if self._rows:
            tasks = self._tasks_of(rule.window)
            decode_attention(q_NHD, pages_B2GTD, self._batch, tasks, rule, out_NHD, tuning.decode)
        if self._has_long and self.is_fresh and can_fetch(k_NGD) and can_fetch(v_NGD):
            fresh_attention(
                q_NHD, k_NGD, v_NGD, self._batch, self._tiles(tuning.fresh), rule, out_NHD, tuning.fresh
            )  # fmt: skip
        elif self._has_long:
            tiles = self._tiles(tuning.chunk)
            chunk_attention(q_NHD, pages_B2GTD, self._batch, tiles, rule, out_NHD, tuning.chunk)
        return out_NHD

    def _tasks_of(self, window: int) -> DecodeTasks:
        """Layers with unlike windows see unlike splits of the same requests."""
        if window not in self._tasks:
            decode = self._plan.tuning.decode
            self._tasks[window] = decode_tasks(
                self._batch,
                self._plan.kv_heads,
                window=window,
                tile=decode.tile,
                splits=decode.splits,
                programs=self._plan.programs,
                splits_max=self._splits_max,
                rows=self._rows,
            )
        return self._tasks[window]

    def _tiles(self, tuning: PrefillTuning) -> QueryTiles:
        """All layers share them."""
        rows = tuning.rows // (self._plan.heads // self._plan.kv_heads)
        if self._query_tiles is None or self._query_tiles.tile_rows != rows:
            self._query_tiles = query_tiles(self._batch, rows, self._plan.few)
        return self._query_tiles
