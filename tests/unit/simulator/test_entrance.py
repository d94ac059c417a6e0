"""Simulated front doors over the workers they share."""

import random

import pytest

from tercet.config import ClusterConfig, EngineConfig, ModelConfig, PoolConfig, Pools
from tercet.ids import FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.events import WorkerWord
from tercet.router.record import RequestRecord
from tercet.simulator.entrance import Entrance
from tercet.simulator.ideal_machine import IdealMachine
from tercet.simulator.machine import Order
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival
from tercet.wire import Endpoint, Submit

CONFIG = ClusterConfig(
    model=ModelConfig(path="unused"),
    pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=4)),
    engine=EngineConfig(block_tokens=512),
)
TURNS = [Arrival(0.0, 512 * depth, 1, tuple(range(1, depth + 1))) for depth in (4, 6)]


class Attentive(IdealMachine):
    """Remembers the names that came with orders."""

    def take(self, owner: FrontDoorId, order: Order) -> None:
        if isinstance(order, Submit):
            self.told = order.names
        super().take(owner, order)


class Town:
    """Front doors, and four workers that can do nothing but report when they are told to."""

    def __init__(self, *doors: str) -> None:
        self.timeline = Timeline()
        self.book: dict[RequestId, Arrival] = {}
        self.records: list[RequestRecord] = []
        self.machines = {
            worker: self._machine(worker) for worker in (WorkerId(f"decode-{n}") for n in range(4))
        }
        self.doors = {FrontDoorId(door): self._door(FrontDoorId(door)) for door in doors}
        self.report()

    def report(self) -> None:
        for worker, machine in self.machines.items():
            report, news = machine.report(), machine.learned()
            for name, door in self.doors.items():
                door.reported(worker, report)
                if name in news:
                    door.learned(worker, news[name])

    def visit(self, door: str, arrival: Arrival) -> RequestRecord:
        """The record of a request that is alone in the town."""
        request, count = RequestId(f"r{len(self.book)}"), len(self.records)
        self.book[request] = arrival
        self.doors[FrontDoorId(door)].visit(
            arrival, request, lambda _, record: self.records.append(record)
        )
        self.timeline.run(lambda: len(self.records) == count)
        return self.records[-1]

    def _machine(self, worker: WorkerId) -> Attentive:
        def say(owner: FrontDoorId, word: WorkerWord) -> None:
            self.doors[owner].heard(worker, word)

        return Attentive(
            self.timeline,
            Endpoint(worker, Incarnation("1"), Role.DECODE, "h", 1, "h"),
            say,
            self.book,
            tokens_per_s=10_000.0,
            cache_blocks=100,
            block_tokens=512,
            start_within_s=1.0,
        )

    def _door(self, name: FrontDoorId) -> Entrance:
        dice = random.Random(0)
        return Entrance(name, CONFIG, self.timeline, self.machines, self.book, dice)


def test_a_conversation_is_found_at_another_front_door_after_a_report() -> None:
    town = Town("f", "g")
    first = town.visit("f", TURNS[0])
    town.report()
    second = town.visit("g", TURNS[1])
    assert second.decode_worker == first.decode_worker
    assert second.cached_tokens == TURNS[0].prompt_tokens
    assert second.choices[0].candidates[0].hit_tokens == TURNS[0].prompt_tokens


def test_before_the_report_nothing_is_known_there() -> None:
    town = Town("f", "g")
    town.visit("f", TURNS[0])
    second = town.visit("g", TURNS[1])
    assert {each.hit_tokens for each in second.choices[0].candidates} == {0}


@pytest.mark.parametrize(("doors", "name_bytes"), [("f", 0), ("fg", 4 * 8)])
def test_orders_carry_names_only_where_there_are_other_front_doors(
    doors: str, name_bytes: int
) -> None:
    town = Town(*doors)
    worker = town.visit("f", TURNS[0]).decode_worker
    assert worker is not None
    assert len(town.machines[worker].told) == name_bytes
    town.report()
    assert len(town.doors[FrontDoorId("f")].reception.hearsay) == 0, "it knows by itself"
