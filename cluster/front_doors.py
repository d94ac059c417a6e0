"""What the replicas of the front door said last. They say it with every poll for the membership, about once a second."""

from collections import OrderedDict

from tercet.clock import Clock
from tercet.cluster.status import FrontDoorReport
from tercet.ids import FrontDoorId, Incarnation

SILENT_S = 10.0
"""A front door that has not polled for so long does not count any more."""
DOORS_MAX = 1024


class FrontDoors:
    """The last report of each."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard: OrderedDict[FrontDoorId, tuple[float, FrontDoorReport]] = OrderedDict()

    def heard(self, report: FrontDoorReport) -> None:
        self._heard[report.front_door] = (self._clock.now_s(), report)
        self._heard.move_to_end(report.front_door)
        while len(self._heard) > DOORS_MAX:
            self._heard.popitem(last=False)

    def living(self) -> list[FrontDoorReport]:
        """Those that polled lately."""
        now_s = self._clock.now_s()
        return [report for heard_s, report in self._heard.values() if now_s - heard_s < SILENT_S]

    def use(self, worker: Incarnation, version: int) -> bool:
        """Whether one of them may have requests on that life of a worker, which is left out of the membership since `version`."""
        return any(
            worker in door.busy or door.membership_version < version for door in self.living()
        )
