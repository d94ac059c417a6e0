"""A step's rows come out of the seats, and what is drawn goes back into them."""

from dataclasses import fields

import pytest
import torch

from tercet.kernels.gpu.decode_rows import (
    DecodeRows,
    SeatTables,
    keep,
    keep_twin,
    prepare,
    prepare_twin,
)

pytestmark = pytest.mark.usefixtures("on_device")


def seats() -> SeatTables:
    tables = SeatTables.zeros(5, 200, torch.get_default_device())
    tables.token_S.copy_(torch.tensor([7, 8, 9, 10, 11]))
    tables.context_S.copy_(torch.tensor([0, 15, 16, 640, 3]))
    tables.table_SW.copy_(torch.randint(0, 99, (5, 200)))
    return tables


def rows() -> DecodeRows:
    made = DecodeRows.padding(6, 200, torch.get_default_device())
    made.seat_R.copy_(torch.tensor([3, -1, 0, 2, 1, -1]))
    return made


def test_rows_are_those_of_the_twin() -> None:
    tables, ours, theirs = seats(), rows(), rows()
    prepare(ours, tables, 4)
    prepare_twin(theirs, tables, 4)
    for field in fields(DecodeRows):
        assert torch.equal(getattr(ours, field.name), getattr(theirs, field.name)), field.name
    assert ours.position_R.tolist() == [640, -1, 0, 16, 15, -1]
    assert torch.equal(ours.table_RW[0, :161], tables.table_SW[3, :161])


def test_seats_go_on_from_what_was_drawn_and_padding_changes_none() -> None:
    ours, theirs, made = seats(), seats(), rows()
    prepare(made, ours, 4)
    theirs.table_SW.copy_(ours.table_SW)
    drawn_R = torch.tensor([1, 2, 3, -1, 5, 6], dtype=torch.int32)
    keep(made.seat_R, drawn_R, made.draw_R, ours)
    keep_twin(made.seat_R, drawn_R, made.draw_R, theirs)
    assert ours.token_S.tolist() == theirs.token_S.tolist() == [3, 5, 0, 1, 11]
    assert ours.context_S.tolist() == theirs.context_S.tolist() == [1, 16, 17, 641, 3]


def launch() -> None:
    tables = SeatTables.zeros(5, 2048, torch.get_default_device())
    made = DecodeRows.padding(6, 2048, torch.get_default_device())
    prepare(made, tables, 64)
    keep(made.seat_R, made.token_R, made.draw_R, tables)


def test_the_kernels_compile_without_spilling(compiled) -> None:
    for kernel in compiled(launch):
        kernel.check()
