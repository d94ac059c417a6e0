"""The device is told what is new, and nothing twice."""

import pytest

from tercet.workers.gpu.seats import Seats
from tercet.workers.runner import Slice


def decode(request: int, start: int, blocks: list[int], *, fed: bool = False) -> Slice:
    return Slice([] if fed else [start + 100], start, blocks, True, request, fed)


def test_a_newcomer_is_told_whole_and_then_only_what_grows() -> None:
    seats, blocks = Seats(2), [5, 9]
    first = [decode(1, 7, blocks)]
    (seat,) = seats.take(first)
    news = seats.news(first, [seat])
    assert news.cells == [(seat.index, 0, 5), (seat.index, 1, 9)]
    assert news.starts == [(seat.index, 107, 7)]
    seat.context = 8
    second = [decode(1, 8, blocks, fed=True)]
    assert not seats.news(second, seats.take(second))
    seat.context = 9
    blocks.append(2)
    third = [decode(1, 9, blocks)]
    news = seats.news(third, seats.take(third))
    assert (news.cells, news.starts) == ([(seat.index, 2, 2)], [])


def test_who_has_lost_its_blocks_is_told_whole_again() -> None:
    seats = Seats(2)
    part = decode(1, 7, [5, 9])
    (seat,) = seats.take([part])
    seats.news([part], [seat])
    again = decode(1, 7, [6, 9])
    assert len(seats.news([again], seats.take([again])).cells) == 2


def test_seats_are_taken_from_those_who_were_away_for_longest() -> None:
    seats = Seats(2)
    (a,), (b,) = seats.take([decode(1, 0, [1])]), seats.take([decode(2, 0, [2])])
    seats.take([decode(1, 1, [1])])
    one, three = seats.take([decode(1, 2, [1]), decode(3, 0, [3])])
    assert one is a
    assert three.index == b.index
    assert three.context == -1


def test_a_token_that_nobody_knows_is_not_fed() -> None:
    seats = Seats(1)
    part = decode(1, 7, [5], fed=True)
    with pytest.raises(AssertionError, match="nobody knows"):
        seats.news([part], seats.take([part]))


def test_a_token_that_was_drawn_elsewhere_is_told() -> None:
    seats = Seats(1)
    part = decode(1, 7, [5])
    (seat,) = seats.take([part])
    seats.news([part], [seat])
    seat.context = 8
    seats.forget([part])
    known = decode(1, 8, part.blocks)  # type: ignore[arg-type]
    assert seats.news([known], seats.take([known])).starts == [(seat.index, 108, 8)]
