"""A decode step's input, made on the device out of what it has drawn itself, and what is kept of its output.

Legend: S seats (a request keeps one while it decodes), R rows of a step, W places of a block table, T tokens of a page. All
int32 but for draw positions, which are int64. A row whose seat is negative is padding: it takes part in nothing.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

LANES = 128


@dataclass(frozen=True, slots=True)
class SeatTables:
    """What the device remembers of each seat."""

    token_S: torch.Tensor
    """The last token of the log, which has no KV yet."""
    context_S: torch.Tensor
    """Tokens that have KV, hence the position of `token_S`."""
    table_SW: torch.Tensor

    @classmethod
    def zeros(cls, seats: int, places: int, device: torch.device) -> "SeatTables":
        # Each in memory of its own: kernels are specialised on where an array begins.
        token_S, context_S = (
            torch.zeros(seats, dtype=torch.int32, device=device) for _ in range(2)
        )
        table_SW = torch.zeros((seats, places), dtype=torch.int32, device=device)
        return cls(token_S, context_S, table_SW)


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """One step's rows, in memory of their own."""

    seat_R: torch.Tensor
    token_R: torch.Tensor
    position_R: torch.Tensor
    """-1 in padding."""
    context_R: torch.Tensor
    """0 in padding."""
    draw_R: torch.Tensor
    """The position of the token that the row draws."""
    table_RW: torch.Tensor

    @classmethod
    def padding(cls, rows: int, places: int, device: torch.device) -> "DecodeRows":
        seat_R, token_R, position_R, context_R = (
            torch.zeros(rows, dtype=torch.int32, device=device) for _ in range(4)
        )
        seat_R.fill_(-1)
        draw_R = torch.zeros(rows, dtype=torch.int64, device=device)
        table_RW = torch.zeros((rows, places), dtype=torch.int32, device=device)
        return cls(seat_R, token_R, position_R, context_R, draw_R, table_RW)

    def first(self, rows: int) -> "DecodeRows":
        """The same memory, without the other rows."""
        return DecodeRows(
            self.seat_R[:rows],
            self.token_R[:rows],
            self.position_R[:rows],
            self.context_R[:rows],
            self.draw_R[:rows],
            self.table_RW[:rows],
        )


@triton.jit
def prepare_kernel(
    seats, seat_tokens, seat_contexts, seat_tables,
    tokens, positions, contexts, draws, tables, W, T: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """One row."""
    r = tl.program_id(0)
    seat = tl.load(seats + r)
    known = seat >= 0
    at = tl.where(known, seat, 0)
    context = tl.where(known, tl.load(seat_contexts + at), 0)
    tl.store(tokens + r, tl.where(known, tl.load(seat_tokens + at), 0))
    tl.store(positions + r, tl.where(known, context, -1))
    tl.store(contexts + r, context)
    tl.store(draws + r, (context + 1).to(tl.int64))
    pages = tl.where(known, context // T + 1, 0)
    source, to = seat_tables + at.to(tl.int64) * W, tables + r.to(tl.int64) * W
    for done in range(0, pages, LANES):
        w = done + tl.arange(0, LANES)
        tl.store(to + w, tl.load(source + w, mask=w < pages, other=0), mask=w < pages)


@triton.jit
def keep_kernel(seats, drawn, draws, seat_tokens, seat_contexts):
    """One row."""
    r = tl.program_id(0)
    seat = tl.load(seats + r)
    if seat >= 0:
        tl.store(seat_tokens + seat, tl.maximum(tl.load(drawn + r), 0))
        tl.store(seat_contexts + seat, tl.load(draws + r).to(tl.int32))


def prepare(rows: DecodeRows, seats: SeatTables, page_tokens: int) -> None:
    """Fills all of `rows` but its seats. Places of block tables behind the row's own position keep what they had."""
    places = seats.table_SW.shape[1]
    assert rows.table_RW.shape[1] == places, (rows.table_RW.shape, places)
    prepare_kernel[len(rows.seat_R),](
        rows.seat_R, seats.token_S, seats.context_S, seats.table_SW,
        rows.token_R, rows.position_R, rows.context_R, rows.draw_R, rows.table_RW,
        places, T=page_tokens, LANES=LANES,
    )  # fmt: skip


def keep(
    seat_R: torch.Tensor, drawn_R: torch.Tensor, draw_R: torch.Tensor, seats: SeatTables
) -> None:
    """Each seat goes on from the token that was drawn for it, which stands at position `draw_R`."""
    keep_kernel[len(seat_R),](seat_R, drawn_R, draw_R, seats.token_S, seats.context_S)


def prepare_twin(rows: DecodeRows, seats: SeatTables, page_tokens: int) -> None:
    """The twin of `prepare`."""
    for r, seat in enumerate(rows.seat_R.tolist()):
        context = int(seats.context_S[seat]) if seat >= 0 else 0
        rows.token_R[r] = seats.token_S[seat] if seat >= 0 else 0
        rows.position_R[r] = context if seat >= 0 else -1
        rows.context_R[r] = context
        rows.draw_R[r] = context + 1
        if seat >= 0:
            pages = context // page_tokens + 1
            rows.table_RW[r, :pages] = seats.table_SW[seat, :pages]


def keep_twin(
    seat_R: torch.Tensor, drawn_R: torch.Tensor, draw_R: torch.Tensor, seats: SeatTables
) -> None:
    """The twin of `keep`."""
    known = seat_R >= 0
    at = seat_R[known].long()
    seats.token_S[at] = drawn_R[known].clamp(min=0)
    seats.context_S[at] = draw_R[known].int()
