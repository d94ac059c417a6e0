"""All moves to one worker, without engine, links or transfer: what they ask for is written down."""

from typing import Any

from tercet import wire
from tercet.clock import ManualClock
from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, Incarnation, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.workers import events
from tercet.workers.arrivals import Arrivals, PullTerms
from tercet.workers.move import Linked
from tercet.workers.transfer import PullFailed, PullJob, Settled
from tercet.workers.transfer.codec_choice import CodecChoice

R = RequestId("r")
SOURCE = wire.Endpoint(WorkerId("s"), Incarnation("1"), Role.DECODE, "h", 1, "here")
TERMS = PullTerms(4, 64, CodecChoice(()))
SPEC = RequestSpec(R, list(range(8)), Sampling(max_tokens=8))


class Desk:
    """Engine, transfer and links in one."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.arrivals = Arrivals(self, self, self, TransferConfig(), TERMS, ManualClock())

    def post(self, *commands: Any) -> None:
        self.asked += commands

    def pull(self, job: PullJob) -> None:
        self.asked.append(job)

    def require(self, endpoint: wire.Endpoint) -> None:
        """The link stands already."""
        self.arrivals.on_source("s:1", Linked())

    def begin(self, epoch: int, *blocks: int) -> None:
        """A live move from the source's first epoch, as far as the engine's answer."""
        order = wire.Adopt(SPEC, Epoch(epoch), SOURCE, Epoch(0), [], live=True)
        self.arrivals.begin("f", order)
        ids = tuple(BlockId(block) for block in blocks)
        self.arrivals.on_engine(events.Reserved(R, Epoch(epoch), ids, 0))


def test_two_moves_from_one_source_may_end_in_another_order() -> None:
    desk = Desk()
    desk.begin(1, 0, 1)
    desk.arrivals.on_source("s:1", wire.Ready(R, Epoch(0), 0, [BlockId(5)], [1], 4))
    (job,) = (each for each in desk.asked if isinstance(each, PullJob))
    desk.arrivals.cancel(R, Epoch(1))
    desk.begin(2, 2, 3)
    desk.arrivals.cancel(R, Epoch(2))
    desk.arrivals.on_transfer(PullFailed(job.id, "late", in_flight=True))
    desk.arrivals.on_transfer(Settled(job.id))
    assert desk.asked[-1] == events.Unquarantine(job.local_blocks)
    assert len(desk.arrivals) == 0
