import pytest

from tercet.cluster.seat import LEGAL, Phase, Seat, backoff_s, seat_index, seat_name, seat_role
from tercet.config import ControlConfig
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role


@pytest.mark.parametrize("role", list(Role))
def test_a_seats_name_says_its_pool_and_place(role):
    name = seat_name(role, 12)
    assert (seat_role(name), seat_index(name)) == (role, 12)


def test_a_strange_name_is_no_seat():
    with pytest.raises(ValueError, match="encode"):
        seat_role(WorkerId("encode-0"))


@pytest.mark.parametrize(
    ("source", "target"), [(a, b) for a in Phase for b in Phase if (a, b) not in LEGAL]
)
def test_an_illegal_move_is_a_bug(source, target):
    seat = Seat(WorkerId("decode-0"), Incarnation("x"), 0.0, source)
    with pytest.raises(AssertionError, match="not legal"):
        seat.move(target, 1.0)


def test_backoff_stays_finite_however_often_a_worker_fails():
    control = ControlConfig(restart_backoff_s=0.5, restart_backoff_s_max=30.0)
    assert backoff_s(1, control) == 0.0
    assert backoff_s(10**6, control) == 30.0
