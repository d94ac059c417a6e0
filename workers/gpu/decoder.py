"""Decode steps: one token of each of some requests in, the next one out, all on the device.

Legend: R rows, S seats, W places of a block table.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from tercet.kernels.gpu.decode_rows import DecodeRows, SeatTables, keep, prepare
from tercet.kernels.gpu.sampling import SamplingScratch, sample
from tercet.kernels.gpu.split_rule import SPLITS_AIM
from tercet.request import Sampling
from tercet.workers.gpu import draw_rows
from tercet.workers.gpu.attention_step import AttentionPlan, AttentionStep
from tercet.workers.gpu.captured import Eager, Repeated
from tercet.workers.gpu.draw_rows import upload
from tercet.workers.gpu.fused_model import FusedModel
from tercet.workers.gpu.seats import Seat, Seats
from tercet.workers.runner import Slice

Repeat = Callable[[Callable[[], torch.Tensor]], Repeated]


def buckets(rows_max: int) -> list[int]:
    """Numbers of rows that steps are made for: 1, 2, 4, and then every eighth."""
    few = [rows for rows in (1, 2, 4) if rows < rows_max]
    return [*few, *range(8, rows_max, 8), rows_max]


class Decoder:
    """Keeps requests' last tokens, lengths and block tables on the device, so that a step needs nothing of the host but to
    be launched."""

    def __init__(
        self,
        model: FusedModel,
        plan: AttentionPlan,
        *,
        rows_max: int,
        places: int,
        page_tokens: int,
        pool_blocks: int,
        vocab: int,
        device: torch.device,
    ) -> None:
        self._model, self._plan, self._page_tokens = model, plan, page_tokens
        self._seats = Seats(rows_max)
        self.tables = SeatTables.zeros(rows_max, places, device)
        self._rows = DecodeRows.padding(rows_max, places, device)
        self._draws = draw_rows.draw_rows(rows_max, device)
        self.scratch = SamplingScratch(rows_max, vocab, device)
        self._counts = torch.arange(rows_max + 1, dtype=torch.int32, device=device)
        split_rule = plan.tuning.decode.splits
        self._splits_of_pool = -(-pool_blocks * page_tokens // split_rule.most)
        self._splits_of_row = split_rule.count_max(places * page_tokens)
        self._seated: list[tuple[int, int]] = []
        """Who is in the first rows: seat and request."""
        self._steps: dict[int, Repeated] = {}
        self.make(Eager, buckets(rows_max))

    def make(self, repeat: Repeat, rows: Sequence[int]) -> None:
        """Has steps of so many rows be run so. Nobody may sit in the rows meanwhile."""
        self._seat([], [])
        # The largest first: the others fit into its memory.
        for count in sorted(rows, reverse=True):
            self._steps[count] = repeat(partial(self._step, count, self._splits(count)))

    def fits(self, slices: Sequence[Slice]) -> bool:
        """Whether a step can be these: one row each, of which a token is drawn."""
        return len(slices) <= len(self._rows.seat_R) and all(
            part.sample and len(part.tokens) + part.fed == 1 for part in slices
        )

    def launch(self, slices: Sequence[Slice], samplings: Sequence[Sampling]) -> torch.Tensor:
        """`[R]`, -1 where logits are not numbers; the device's until the next launch."""
        seats = self._seats.take(slices)
        self._tell(slices, seats)
        self._seat(
            [(seat.index, part.request) for seat, part in zip(seats, slices, strict=True)],
            samplings,
        )
        count = next(rows for rows in sorted(self._steps) if rows >= len(slices))
        ends = np.array([part.end for part in slices])
        splits = self._plan.splits(ends) + count - len(slices)
        for seat, part in zip(seats, slices, strict=True):
            seat.context = part.end
        if splits > self._splits(count):
            # So many share blocks that all contexts together exceed the pool.
            return self._step(count, splits)[: len(slices)]
        return self._steps[count]()[: len(slices)]

    def keep(self, slices: Sequence[Slice], token_R: torch.Tensor) -> None:
        """Tokens that were drawn on the device, but not by a step of this."""
        seats = self._seats.take(slices)
        device = token_R.device
        seat_R = upload(np.array([seat.index for seat in seats], dtype=np.int32), device)
        end_R = upload(np.array([part.end for part in slices], dtype=np.int64), device)
        keep(seat_R, token_R, end_R, self.tables)
        for seat, part in zip(seats, slices, strict=True):
            seat.context = part.end

    def forget(self, slices: Sequence[Slice]) -> None:
        """Tokens of these are drawn elsewhere."""
        self._seats.forget(slices)

    def last_tokens(self, slices: Sequence[Slice]) -> torch.Tensor:
        """`[R]`: what the device has drawn for each last; all must have been."""
        seats = self._seats.take(slices)
        index = upload(np.array([seat.index for seat in seats]), self.tables.token_S.device)
        return self.tables.token_S[index]

    def _splits(self, rows: int) -> int:
        """Items of attention that a step of so many rows has room for."""
        return min(rows * self._splits_of_row, self._splits_of_pool + rows * SPLITS_AIM)

    def _step(self, count: int, splits_max: int) -> torch.Tensor:
        rows = self._rows.first(count)
        prepare(rows, self.tables, self._page_tokens)
        step = AttentionStep.decoding(self._plan, rows, self._counts[: count + 1], splits_max)
        logits_RV = self._model(rows.token_R, step)
        draws = draw_rows.first(self._draws, count, rows.draw_R)
        token_R = sample(logits_RV, draws, self.scratch).token_R
        keep(rows.seat_R, token_R, rows.draw_R, self.tables)
        return token_R

    def _tell(self, slices: Sequence[Slice], seats: Sequence[Seat]) -> None:
        news, device = self._seats.news(slices, seats), self._rows.seat_R.device
        if news.cells:
            seat, place, block = upload(np.array(news.cells, dtype=np.int64).T.copy(), device)
            self.tables.table_SW[seat, place] = block.int()
        if news.starts:
            seat, token, context = upload(np.array(news.starts, dtype=np.int64).T.copy(), device)
            self.tables.token_S[seat] = token.int()
            self.tables.context_S[seat] = context.int()

    def _seat(self, seated: list[tuple[int, int]], samplings: Sequence[Sampling]) -> None:
        """Who is in the first rows; nobody is in the others."""
        if seated == self._seated:
            return
        seats = np.full(len(self._rows.seat_R), -1, dtype=np.int32)
        seats[: len(seated)] = [seat for seat, _ in seated]
        self._rows.seat_R.copy_(upload(seats, self._rows.seat_R.device))
        if samplings:
            draw_rows.write(self._draws, samplings)
        self._seated = seated
