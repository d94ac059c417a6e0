"""Simulated front doors hear of each other from the workers they share."""

import random

import pytest

from tercet.config import ClusterConfig, EngineConfig, ModelConfig, PoolConfig, Pools
from tercet.ids import FrontDoorId, RequestId
from tercet.router.record import RequestRecord
from tercet.simulator.engine_machine import nobody
from tercet.simulator.entrance import Entrance
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.layout import seats
from tercet.simulator.machine_model import makes
from tercet.simulator.options import Failure, SimulationOptions
from tercet.simulator.plant import Plant
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival

CONFIG = ClusterConfig(
    model=ModelConfig(path="unused"),
    pools=Pools(prefill=PoolConfig(replicas=0), decode=PoolConfig(replicas=4)),
    engine=EngineConfig(block_tokens=512, kv_blocks=100),
)
TURNS = [Arrival(0.0, 512 * depth, 1, tuple(range(1, depth + 1))) for depth in (4, 6)]
REPORT_S = 5.0


class Town:
    """Front doors and four ideal workers, whose reports come long after a request has ended."""

    def __init__(
        self,
        doors: str,
        knowledge: Knowledge = Knowledge.OWN,
        failures: tuple[Failure, ...] = (),
    ) -> None:
        self.timeline = Timeline()
        self.book: dict[RequestId, Arrival] = {}
        self.records: list[RequestRecord] = []
        self.options = SimulationOptions(
            report_age_s=REPORT_S, knowledge=knowledge, failures=failures
        )
        make = makes(self.options.model, self.timeline, CONFIG, self.book, nobody, seed=0)
        self.plant = Plant(self.timeline, self.options, seats(CONFIG), make)
        self.doors = {name: self._door(FrontDoorId(name)) for name in doors}
        self.plant.open(self.doors.values())

    def visit(self, door: str, arrival: Arrival) -> RequestRecord:
        """The record of a request that is alone in the town."""
        request, count = RequestId(f"r{len(self.book)}"), len(self.records)
        self.book[request] = arrival
        self.doors[door].visit(arrival, request, lambda _, record: self.records.append(record))
        self.timeline.run(lambda: len(self.records) == count)
        return self.records[-1]

    def wait(self) -> None:
        """Until all workers have reported."""
        self.timeline.run(lambda: True, self.timeline.now_s() + REPORT_S)

    def known(self, door: str) -> int:
        return len(self.doors[door].reception.hearsay)

    def _door(self, name: FrontDoorId) -> Entrance:
        machines, dice = self.plant.machines, random.Random(0)
        return Entrance(name, CONFIG, self.timeline, machines, self.book, dice)


def test_a_conversation_is_found_at_another_front_door_after_a_report() -> None:
    town = Town("fg")
    first = town.visit("f", TURNS[0])
    town.wait()
    second = town.visit("g", TURNS[1])
    assert second.decode_worker == first.decode_worker
    assert second.cached_tokens == TURNS[0].prompt_tokens
    assert second.predicted_cached_tokens == TURNS[0].prompt_tokens
    assert (town.known("f"), town.known("g")) == (0, 4), "each knows by itself what it sent"


def test_before_the_report_nothing_is_known_there() -> None:
    town = Town("fg")
    town.visit("f", TURNS[0])
    assert town.visit("g", TURNS[1]).predicted_cached_tokens == 0


def test_what_a_worker_was_sent_is_forgotten_with_its_life() -> None:
    failures = tuple(Failure(seat.worker, 1.5 * REPORT_S, down_s=0.1) for seat in seats(CONFIG))
    town = Town("fg", failures=failures)
    town.visit("f", TURNS[0])
    town.wait()
    assert town.known("g") == 4
    town.wait()
    assert town.known("g") == 0
    assert town.visit("g", TURNS[1]).predicted_cached_tokens == 0


@pytest.mark.parametrize(
    ("doors", "knowledge", "name_bytes"),
    [
        ("fg", Knowledge.OWN, 4 * 8),
        ("f", Knowledge.OWN, 0),
        ("fg", Knowledge.ALONE, 0),
        ("fg", Knowledge.EXACT, 0),
    ],
)
def test_orders_carry_names_only_where_another_front_door_would_hear_of_them(
    doors: str, knowledge: Knowledge, name_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = Town(doors, knowledge)
    told: list[bytes] = []
    for life in town.plant.lives.values():
        monkeypatch.setattr(life.relay, "note", lambda _, names: told.append(names))
    town.visit("f", TURNS[0])
    assert [len(names) for names in told] == [name_bytes]
