"""Machines that die or hang. Every request still ends, once and whole, and nothing is left (see the fixture)."""

from collections.abc import Callable
from functools import partial

import pytest

from tercet.role import Role
from tercet.router.record import Outcome
from tercet.simulator.traces import Arrival
from tercet.wire import Tokens

Workload = Callable[..., list[Arrival]]


def whole(town: object, arrivals: list[Arrival]) -> None:
    """Everybody has all its tokens."""
    outputs = {f"r{number}": arrival.output_tokens for number, arrival in enumerate(arrivals)}
    for record in town.records:
        assert record.outcome is Outcome.LENGTH, record
        assert record.output_tokens == outputs[record.request]


@pytest.mark.parametrize("leaps", [True, False])
@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_a_worker_that_dies_comes_back_as_another_one(
    build: object, workload: Workload, victim: str, leaps: bool
) -> None:
    arrivals = workload(2, requests=200, rate=25.0)
    town = build(2, 2, leaps=leaps)
    machine = town.machines[victim]
    born = partial(town.born, victim, machine.endpoint.role, "2")
    town.timeline.call_at(2.0, town.outages.restart, machine, 4.0, born)
    town.replay(arrivals)
    whole(town, arrivals)
    assert sum(record.replays + record.recomputed for record in town.records) > 0
    heirs = town.machines[victim]
    assert heirs.endpoint.incarnation == "2"
    assert heirs.busy_s > 0
    assert not [word for at_s, worker, word in town.words if worker == victim and 2 < at_s < 5]


def test_what_a_machine_said_before_it_died_is_not_computed_again(build: object) -> None:
    arrival = Arrival(0.0, 100, 120, tuple(range(12)))
    town = build(0, 2)
    town.timeline.call_at(0.4, lambda: town.outages.kill(victim()))

    def victim() -> object:
        (busy,) = [machine for machine in town.machines.values() if machine.busy_s]
        return busy

    town.replay([arrival])
    dead, heir = sorted(town.machines.values(), key=lambda machine: machine.alive)
    assert not dead.alive
    said = {}
    for _, worker, word in town.words:
        if isinstance(word, Tokens):
            said.setdefault(worker, word.index)
            end = word.index + len(word.tokens)
            if worker == dead.endpoint.worker:
                before = end
    assert 40 < before < 120
    assert said[heir.endpoint.worker] == before
    assert town.records[0].replays == 1
    assert town.gaps()[town.records[0].request].total == 119
    town.machines = {heir.endpoint.worker: heir}


@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_a_short_hang_is_only_a_pause(build: object, workload: Workload, victim: str) -> None:
    arrivals = workload(3, requests=80, rate=20.0)
    town = build(1, 2)
    town.timeline.call_at(2.0, town.outages.hang, town.machines[victim], 1.5)
    town.replay(arrivals)
    whole(town, arrivals)
    assert sum(record.replays for record in town.records) == 0
    assert not [word for at_s, worker, word in town.words if worker == victim and 2 < at_s < 3.5]
    if victim == "decode-0":
        longest_s = max(gaps.quantile_s(1.0) or 0.0 for gaps in town.gaps().values())
        assert longest_s == pytest.approx(1.5, rel=0.1)


@pytest.mark.parametrize("victim", ["prefill-0", "decode-0"])
def test_a_long_hang_is_a_loss_and_then_it_is_back(
    build: object, workload: Workload, victim: str
) -> None:
    arrivals = workload(4, requests=300, rate=20.0)
    town = build(2, 2)
    machine = town.machines[victim]
    town.timeline.call_at(2.0, town.outages.hang, machine, 6.0)
    town.replay(arrivals)
    whole(town, arrivals)
    assert sum(record.replays + record.recomputed for record in town.records) > 0
    assert town.machines[victim] is machine
    assert [word for at_s, worker, word in town.words if worker == victim and at_s > 9]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_fails_every_request_ends_whole(
    build: object, workload: Workload, seed: int
) -> None:
    arrivals = workload(seed, requests=200, rate=20.0)
    town = build(2, 3, seed=seed, kv_blocks=120)
    for number, victim in enumerate(["prefill-0", "decode-0", "decode-1", "prefill-1"]):
        at_s = 1.0 + 1.3 * number + seed * 0.1
        role = Role(victim.split("-")[0])

        def fail(victim: str = victim, role: Role = role, number: int = number) -> None:
            machine = town.machines[victim]
            if number % 2:
                town.outages.hang(machine, 4.0)
            else:
                town.outages.restart(machine, 2.0, partial(town.born, victim, role, "2"))

        town.timeline.call_at(at_s, fail)
    town.replay(arrivals)
    whole(town, arrivals)
