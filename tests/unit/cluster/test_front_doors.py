"""Which front doors count, and what they still have."""

from tercet.cluster.front_doors import DOORS_MAX, SILENT_S, FrontDoors
from tercet.cluster.status import FrontDoorReport
from tercet.ids import FrontDoorId, Incarnation

LIFE = Incarnation("life")


class Hands:
    """A clock that is set."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now_s(self) -> float:
        return self.at_s


def report(name: str, version: int, *busy: Incarnation) -> FrontDoorReport:
    return FrontDoorReport(
        front_door=FrontDoorId(name), grpc="", membership_version=version, busy=busy
    )


def test_a_worker_is_used_until_every_front_door_knows_that_it_is_out_and_has_nothing_there():
    doors = FrontDoors(Hands())
    assert not doors.use(LIFE, 7), "there is nobody"
    doors.heard(report("a", 7))
    doors.heard(report("b", 6))
    assert doors.use(LIFE, 7), "b may send it something"
    doors.heard(report("b", 8, LIFE))
    assert doors.use(LIFE, 7), "b has something there"
    assert not doors.use(Incarnation("another"), 7)
    doors.heard(report("b", 8))
    assert not doors.use(LIFE, 7)


def test_a_front_door_that_is_gone_does_not_count():
    hands = Hands()
    doors = FrontDoors(hands)
    doors.heard(report("a", 1, LIFE))
    hands.at_s = SILENT_S
    doors.heard(report("b", 9))
    assert [door.front_door for door in doors.living()] == ["b"]
    assert not doors.use(LIFE, 9)


def test_no_more_are_remembered_than_there_may_be():
    doors = FrontDoors(Hands())
    for number in range(DOORS_MAX + 5):
        doors.heard(report(f"door-{number}", 1))
    assert len(doors.living()) == DOORS_MAX
    assert doors.living()[-1].front_door == f"door-{DOORS_MAX + 4}"
