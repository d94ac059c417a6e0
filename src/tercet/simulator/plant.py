"""The workers of a simulated cluster, life after life, and how front doors hear of them."""

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from msgspec import structs

from tercet.ids import FrontDoorId, Incarnation, WorkerId
from tercet.latency import Coefficients
from tercet.router.events import WorkerWord
from tercet.router.ledger import SETTLE_S
from tercet.simulator.entrance import Entrance
from tercet.simulator.knowledge import Knowledge
from tercet.simulator.machine import Machine, Order
from tercet.simulator.machine_model import Make
from tercet.simulator.options import Failure, SimulationOptions
from tercet.simulator.timeline import Timeline
from tercet.wire import Adopt, Endpoint, LoadReport, Submit
from tercet.workers.relay import Relay

QUIET_PERIODS = 16
"""After so many without any request nobody listens, and reports need not be written until there is one again."""
ROUNDING_S = 1e-6
"""Sums of times may be off by less than this."""


class Life:
    """A machine until it dies. Nothing reaches it afterwards, and nothing that it says is heard."""

    machine: Machine

    def __init__(self, endpoint: Endpoint, plant: "Plant") -> None:
        self.endpoint, self._plant = endpoint, plant
        self.ended_busy_s: float | None = None
        """How busy it was when it died."""
        self.reports_soon = False
        self.relay = Relay()

    @property
    def alive(self) -> bool:
        return self.ended_busy_s is None

    @property
    def busy_s(self) -> float:
        return self.machine.busy_s if self.ended_busy_s is None else self.ended_busy_s

    def kill(self) -> None:
        busy_s = self.machine.busy_s
        self.machine.kill()
        self.ended_busy_s = busy_s

    def take(self, owner: FrontDoorId, order: Order) -> None:
        if self.alive:
            if isinstance(order, Submit | Adopt):
                self.relay.note(owner, order.names)
            self.machine.take(owner, order)
            self._plant.changed(self)

    def report(self) -> LoadReport:
        return structs.replace(self.machine.report(), front_doors=len(self.relay))

    def hit(self, names: Sequence[int]) -> int:
        return self.machine.hit(names)

    def cached(self) -> frozenset[int]:
        return self.machine.cached()


class Plant:
    """Workers report to all front doors: every `report_age_s` seconds, or whenever something has changed."""

    def __init__(
        self,
        timeline: Timeline,
        options: SimulationOptions,
        seats: Iterable[Endpoint],
        make: Make,
    ) -> None:
        self._timeline, self._options, self._make = timeline, options, make
        self._dice = random.Random(f"{options.seed}/reports")
        self._doors: dict[FrontDoorId, Entrance] = {}
        self._former_busy_s: dict[WorkerId, float] = {}
        """Of lives that are over."""
        self._quiet_since_s: float | None = None
        self._asleep: list[tuple[Life, float]] = []
        """Who would have reported then, and does not."""
        self.snapshots: dict[WorkerId, frozenset[int]] = {}
        """What was cached when each worker last reported, where somebody wants to know."""
        self.lives = {endpoint.worker: self._born(endpoint) for endpoint in seats}

    @property
    def machines(self) -> Mapping[WorkerId, Machine]:
        return self.lives

    @property
    def exact(self) -> bool:
        """Reports come with every change."""
        return self._options.report_age_s == 0

    def busy_s(self, worker: WorkerId) -> float:
        """Time the worker has spent computing, over all its lives."""
        return self._former_busy_s.get(worker, 0.0) + self.lives[worker].busy_s

    def open(self, doors: Iterable[Entrance]) -> None:
        """From now on these are told; each hears a first report of every worker at once."""
        self._doors = {door.name: door for door in doors}
        for life in self.lives.values():
            self._connect(life)
            self._deliver(life, self._written(life), self._timeline.now_s(), {})
            self._report_on(life)
        for failure in self._options.failures:
            self._timeline.call_at(failure.at_s, self._fail, failure)

    def changed(self, life: Life) -> None:
        """What the life would report is not what it last reported."""
        if self.exact and not life.reports_soon:
            life.reports_soon = True
            self._timeline.call_later(0.0, self._report, life)

    def rest(self) -> None:
        """No request is anywhere."""
        self._quiet_since_s = self._timeline.now_s()

    def wake(self) -> None:
        """There is a request again. Front doors must know what they would have heard."""
        self._quiet_since_s = None
        asleep, self._asleep = self._asleep, []
        age_s, now_s = self._options.report_age_s, self._timeline.now_s()
        for life, missed_s in asleep:
            if life.alive:
                self._deliver(life, self._written(life), now_s, {})
                next_s = missed_s + math.ceil((now_s - missed_s) / age_s) * age_s
                self._timeline.call_at(next_s, self._tick, life)

    # ---- lives -------------------------------------------------------------------------------------------------------

    def _born(self, endpoint: Endpoint) -> Life:
        life = Life(endpoint, self)
        speed = self._options.speeds.get(endpoint.worker, 1.0)
        life.machine = self._make(endpoint, partial(self._said, life), speed)
        return life

    def _connect(self, life: Life) -> None:
        """Front doors hear of each other where they know what production ones do."""
        if self._options.knowledge is Knowledge.OWN:
            for door in self._doors:
                life.relay.join(door)

    def _fail(self, failure: Failure) -> None:
        life = self.lives[failure.worker]
        if not life.alive:
            return
        life.kill()
        self._tell_all(lambda door: door.lost(failure.worker))
        if failure.down_s < math.inf:
            self._timeline.call_later(failure.down_s, self._replace, life)

    def _replace(self, former: Life) -> None:
        worker, number = former.endpoint.worker, int(former.endpoint.incarnation) + 1
        self._former_busy_s[worker] = self.busy_s(worker)
        endpoint = structs.replace(former.endpoint, incarnation=Incarnation(str(number)))
        life = self.lives[worker] = self._born(endpoint)
        self._connect(life)
        self.snapshots.pop(worker, None)
        self._tell_all(lambda door: door.joined(endpoint))
        self._report(life)
        self._report_on(life)

    # ---- what front doors hear ---------------------------------------------------------------------------------------

    def _said(self, life: Life, owner: FrontDoorId, word: WorkerWord) -> None:
        if life.alive:
            door, worker = self._doors[owner], life.endpoint.worker
            self._timeline.call_later(self._options.network_s, door.heard, worker, word)
            self.changed(life)

    def _report_on(self, life: Life) -> None:
        """Again and again, in a phase of its own."""
        if not self.exact:
            first_s = self._dice.random() * self._options.report_age_s
            self._timeline.call_later(first_s, self._tick, life)

    def _tick(self, life: Life) -> None:
        if not life.alive:
            return
        age_s, now_s, since_s = (
            self._options.report_age_s,
            self._timeline.now_s(),
            self._quiet_since_s,
        )
        if since_s is not None and now_s - since_s > QUIET_PERIODS * age_s:
            self._asleep.append((life, now_s))
            return
        self._report(life)
        self._timeline.call_later(age_s, self._tick, life)

    def _report(self, life: Life) -> None:
        life.reports_soon = False
        if life.alive:
            report, news, now_s = self._written(life), life.relay.take(), self._timeline.now_s()
            self._timeline.call_later(
                self._options.network_s, self._deliver, life, report, now_s, news
            )

    def _written(self, life: Life) -> LoadReport:
        if self._options.knowledge is Knowledge.SNAPSHOT and not self.exact:
            self.snapshots[life.endpoint.worker] = life.cached()
        report, noise = life.report(), self._options.estimate_noise
        if not noise:
            return report
        off = 1.0 + self._dice.uniform(-noise, noise)
        return structs.replace(
            report,
            prefill_coefficients=_times(off, report.prefill_coefficients),
            decode_coefficients=_times(off, report.decode_coefficients),
        )

    def _deliver(
        self, life: Life, report: LoadReport, written_s: float, news: Mapping[str, bytes]
    ) -> None:
        """Where reports are exact, it is also known exactly which dispatches they count."""
        for door in self._doors.values():
            if self.exact:
                counted_s = written_s - self._options.network_s + SETTLE_S + ROUNDING_S
                door.reception.ledger.reconcile(life.endpoint, counted_s)
            door.reported(life.endpoint.worker, report)
            if door.name in news:
                door.learned(life.endpoint, news[door.name])

    def _tell_all(self, tell: Callable[[Entrance], None]) -> None:
        for door in self._doors.values():
            self._timeline.call_later(self._options.network_s, tell, door)


def _times(factor: float, coefficients: Coefficients) -> Coefficients:
    fixed, first, second = coefficients
    return factor * fixed, factor * first, factor * second
