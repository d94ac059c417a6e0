"""A whole simulated cluster of engine machines behind real front doors, which ends with nothing left anywhere."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial

import pytest
from msgspec import structs

from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    SloConfig,
)
from tercet.ids import FrontDoorId, Incarnation, RequestId, WorkerId
from tercet.role import Role
from tercet.router.record import RequestRecord
from tercet.simulator.engine_machine import EngineMachine
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.entrance import Entrance
from tercet.simulator.fabric import Fabric
from tercet.simulator.outages import Outages
from tercet.simulator.stretches import Gaps, Stretch
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival
from tercet.wire import Endpoint, HandedOff, Tokens

NETWORK_S = 0.0007
MODEL = EngineModel(
    prefill=(0.004, 0.0001, 1e-8),
    decode=(0.005, 0.0003, 1e-6),
    kv_bytes_per_token=2**16,
    bandwidth_bytes_per_s=1e9,
    latency_s=0.0001,
)


class Town:
    """`replay` sends arrivals and waits until all are over."""

    def __init__(
        self, prefill: int, decode: int, *, model: EngineModel = MODEL, leaps: bool = True,
        seed: int = 0, speeds: dict[str, float] | None = None,
        continued: dict[str, tuple[int, ...]] | None = None, refusing_after_s: float = 1.0,
        **engine: float,
    ) -> None:  # fmt: skip
        engine = {"block_tokens": 8, "kv_blocks": 400, "step_tokens_max": 256, **engine}
        self.config = ClusterConfig(
            model=ModelConfig(path="none"),
            pools=Pools(
                prefill=PoolConfig(replicas=prefill),
                decode=PoolConfig(replicas=decode),
            ),
            engine=EngineConfig(**engine),
            slo=SloConfig(ttft_ms=2000),
            router=RouterConfig(local_prefill_tokens_max=16),
            front_door=FrontDoorConfig(in_flight_max=10_000, queue_max=10_000, queue_wait_s_max=1e4),
        )  # fmt: skip
        self.timeline, self.book = Timeline(), {}
        self._model, self._seed, self._leaps, self._speeds = model, seed, leaps, speeds or {}
        # Doors count on their own figure, and with less than that workers refuse what they send.
        theirs = structs.replace(self.config.engine, start_within_s=refusing_after_s)
        self._worker_config = structs.replace(self.config, engine=theirs)
        self._continued = continued or {}
        self.fabric = Fabric(self.timeline, model, self.config.link.dead_after_s)
        self.stretches: list[Stretch] = []
        self.words: list[tuple[float, WorkerId, object]] = []
        self.token_times: defaultdict[RequestId, list[float]] = defaultdict(list)
        self.machines: dict[WorkerId, EngineMachine] = {}
        self.former: list[EngineMachine] = []
        for role, replicas in ((Role.PREFILL, prefill), (Role.DECODE, decode)):
            for number in range(replicas):
                self.born(WorkerId(f"{role.value}-{number}"), role)
        dice = random.Random(seed)
        self.door = Entrance(
            FrontDoorId("door"), self.config, self.timeline, self.machines, self.book, dice,
            network_s=NETWORK_S,
        )  # fmt: skip
        self.outages = Outages(
            self.timeline, [self.door], self.fabric, self.config.link.dead_after_s
        )
        self.records: list[RequestRecord] = []

    def born(self, worker: WorkerId, role: Role, life: str = "1") -> EngineMachine:
        if worker in self.machines:
            self.former.append(self.machines[worker])
        endpoint = Endpoint(worker, Incarnation(life), role, "simulated", 1, "simulated")
        machine = self.machines[worker] = EngineMachine(
            self.timeline, endpoint, partial(self._say, worker), self.book, self._worker_config,
            self._model, self.fabric, speed=self._speeds.get(worker, 1.0), seed=self._seed,
            told=self.stretches.append, leaps=self._leaps,
            continued=lambda request: self._continued.get(request, ()),
        )  # fmt: skip
        return machine

    def replay(self, arrivals: Iterable[Arrival]) -> list[RequestRecord]:
        arrivals = list(arrivals)
        for number, arrival in enumerate(arrivals):
            request = RequestId(f"r{number}")
            self.book[request] = arrival
            self.timeline.call_at(arrival.at_s, self.door.visit, arrival, request, self._over)
        for number, machine in enumerate(self.machines.values()):
            self.timeline.call_at(number * 0.001, self._report, machine.endpoint.worker)
        self.timeline.run(lambda: len(self.records) < len(arrivals), until_s=10_000)
        assert len(self.records) == len(arrivals), "a request never ended"
        self.timeline.run(lambda: True, until_s=self.timeline.now_s() + 40)
        return self.records

    def gaps(self) -> dict[RequestId, Gaps]:
        gaps: dict[RequestId, Gaps] = {}
        for stretch in self.stretches:
            gaps.setdefault(stretch.request, Gaps()).add(stretch)
        return gaps

    def handed_off(self, request: RequestId) -> bool:
        return any(isinstance(w, HandedOff) and w.request == request for *_, w in self.words)

    def check_empty(self) -> None:
        """Nothing is kept by machines that live, nor by the door."""
        for machine in self.machines.values():
            machine.engine.check_integrity()
            report = machine.report()
            kept = (report.waiting, report.running, report.holding, report.pulling, report.leases)
            assert kept == (0, 0, 0, 0, 0), machine.endpoint.worker
            assert (report.blocks_used, report.quarantined_blocks) == (0, 0)
            assert (report.pending_prefill_tokens, report.context_tokens) == (0, 0)
            assert machine.hand_offs == 0
        assert not self.door.reception.pilots
        assert not self.door.reception.ledger.charges

    def _say(self, worker: WorkerId, owner: FrontDoorId, word: object) -> None:
        now_s = self.timeline.now_s()
        self.words.append((now_s, worker, word))
        if isinstance(word, Tokens):
            self.token_times[word.request] += [now_s] * len(word.tokens)
        self.timeline.call_later(NETWORK_S, self.door.heard, worker, word)

    def _report(self, worker: WorkerId) -> None:
        machine = self.machines[worker]
        if machine.awake:
            self.door.reported(worker, machine.report())
        self.timeline.call_later(self.config.link.report_period_s, self._report, worker)

    def _over(self, arrival: Arrival, record: RequestRecord) -> None:
        self.records.append(record)


Build = Callable[..., Town]


@pytest.fixture
def build() -> Iterable[Build]:
    """Builds towns, and looks whether anything is left in them at the end of the test."""
    towns: list[Town] = []

    def build(*args: object, **kwargs: object) -> Town:
        towns.append(Town(*args, **kwargs))
        return towns[-1]

    yield build
    for town in towns:
        town.check_empty()


@pytest.fixture
def workload() -> Callable[..., list[Arrival]]:
    """Conversations that share beginnings, at random."""

    def make(seed: int, requests: int, rate: float, block_tokens: int = 8) -> list[Arrival]:
        dice = random.Random(seed)
        at_s, arrivals = 0.0, []
        for _ in range(requests):
            at_s += dice.expovariate(rate)
            prompt = dice.randint(1, 40 * block_tokens)
            family, shared = dice.randrange(4), dice.randint(0, 30)
            blocks = range(prompt // block_tokens)
            own = dice.randrange(2**30) << 20
            names = tuple(family << 10 | n if n < shared else own + n for n in blocks)
            priority = dice.choice((0, 0, 0, 1))
            output = dice.choice((1, 2, dice.randint(3, 120)))
            arrivals.append(Arrival(at_s, prompt, output, names, priority=priority))
        return arrivals

    return make
