"""Who reads from whom, and how long that takes when adapters are shared."""

from dataclasses import dataclass, field

import pytest

from tercet.ids import BlockId, Epoch, RequestId
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.fabric import Fabric
from tercet.simulator.timeline import Timeline
from tercet.workers.transfer import JobId, Pulled, PullFailed, PullJob

MODEL = EngineModel(bandwidth_bytes_per_s=1000.0, latency_s=0.01)


@dataclass
class Worker:
    agent: str
    timeline: Timeline
    words: dict[int, int] = field(default_factory=dict)
    pulls: list[tuple[float, Pulled | PullFailed]] = field(default_factory=list)
    links: list[tuple[float, str, bool]] = field(default_factory=list)

    def pulled(self, event: Pulled | PullFailed) -> None:
        self.pulls.append((self.timeline.now_s(), event))

    def linked(self, source: str, there: bool) -> None:
        self.links.append((self.timeline.now_s(), source, there))

    def unlinked(self, peer: str) -> None:
        self.links.append((self.timeline.now_s(), peer, False))

    def generations(self, blocks: tuple[BlockId, ...]) -> tuple[int, ...]:
        return tuple(self.words.get(block, 1) for block in blocks)


class Lan:
    def __init__(self, *names: str) -> None:
        self.timeline = Timeline()
        self.fabric = Fabric(self.timeline, MODEL, dead_after_s=3.0)
        self.workers = {name: Worker(name, self.timeline) for name in names}
        for worker in self.workers.values():
            self.fabric.join(worker)

    def pull(self, reader: str, source: str, bytes_: int) -> None:
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), 1), source, (BlockId(0),), (BlockId(5),), (1,)
        )
        self.fabric.pull(self.workers[reader], job, bytes_)

    def run(self) -> dict[str, list[float]]:
        """When each worker's pulls were over."""
        self.timeline.run(lambda: True)
        return {name: [at_s for at_s, _ in each.pulls] for name, each in self.workers.items()}


def test_a_pull_takes_as_long_as_its_bytes() -> None:
    lan = Lan("a", "b")
    lan.pull("a", "b", 500)
    assert lan.run()["a"] == [pytest.approx(0.51)]


def test_those_who_pull_from_one_machine_share_its_adapter() -> None:
    lan = Lan("a", "b", "c")
    lan.pull("a", "c", 500)
    lan.pull("b", "c", 500)
    assert lan.run() == {"a": [pytest.approx(0.51)], "b": [pytest.approx(1.01)], "c": []}


def test_who_pulls_from_two_machines_has_one_adapter() -> None:
    lan = Lan("a", "b", "c")
    lan.pull("a", "b", 500)
    lan.pull("a", "c", 500)
    assert lan.run()["a"] == [pytest.approx(0.51), pytest.approx(1.01)]


def test_pulls_of_different_machines_do_not_wait_for_each_other() -> None:
    lan = Lan("a", "b", "c", "d")
    lan.pull("a", "b", 500)
    lan.pull("c", "d", 500)
    assert lan.run() == {"a": [pytest.approx(0.51)], "c": [pytest.approx(0.51)], "b": [], "d": []}


def test_what_was_overwritten_or_is_gone_is_not_pulled() -> None:
    lan = Lan("a", "b", "c")
    lan.pull("a", "b", 100)
    lan.pull("a", "c", 100)
    lan.workers["b"].words[0] = 2
    lan.fabric.leave(lan.workers["c"])
    lan.run()
    reasons = [event.reason for _, event in lan.workers["a"].pulls]
    assert reasons == ["blocks were overwritten", "c is gone"]


def test_a_death_is_noticed_late_and_nobody_can_be_linked_to_meanwhile() -> None:
    lan = Lan("a", "b")
    lan.fabric.leave(lan.workers["b"])
    lan.fabric.open(lan.workers["a"], "b")
    lan.run()
    assert lan.workers["a"].links == [(0.02, "b", False), (3.0, "b", False)]
