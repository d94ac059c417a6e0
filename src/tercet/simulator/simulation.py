"""One simulation: the clients of a trace, front doors with the real reception, simulated workers, one timeline."""

import gc
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from msgspec import structs

from tercet.clock import Clock, MonotonicClock
from tercet.config import ClusterConfig
from tercet.errors import OptionError
from tercet.ids import FrontDoorId, RequestId
from tercet.router.record import RequestRecord
from tercet.simulator.clients import Ended, clients_of
from tercet.simulator.entrance import Entrance
from tercet.simulator.findings import Findings
from tercet.simulator.knowledge import Knowledge, ReportsAlone, ToldIndex
from tercet.simulator.layout import all_in_one, in_blocks_of, seats
from tercet.simulator.machine_model import hands_off, makes
from tercet.simulator.options import SimulationOptions
from tercet.simulator.plant import Plant
from tercet.simulator.results import Results
from tercet.simulator.stretches import Stretch
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival, ClosedTrace, Trace

Watch = Callable[[int, float], None]
"""Told now and then how many requests have ended, and at which time of the simulation."""

WATCH_EVERY = 256
"""Requests."""
GARBAGE_THRESHOLDS = 20_000, 20, 20
"""Of Python's three generations, the first in objects: a few megabytes."""
STALL_S = 4 * 3600.0
"""A simulation in which nothing ends for so long is not slow, but wrong."""


def simulate(
    config: ClusterConfig,
    trace: Trace | ClosedTrace,
    options: SimulationOptions | None = None,
    watch: Watch | None = None,
    clock: Clock | None = None,
) -> Results:
    """Replay the trace to the end of its last request. Raises OptionError, ConfigError for a policy, TraceError.

    `clock` measures the simulator itself.
    """
    options, clock = options or SimulationOptions(), clock or MonotonicClock()
    if not hands_off(options.model):
        config = all_in_one(config)
    config = in_blocks_of(config, trace.block_tokens)
    if options.report_age_s:
        link = structs.replace(config.link, report_period_s=options.report_age_s)
        config = structs.replace(config, link=link)
    simulation = Simulation(config, trace, options, watch)
    started_s = clock.now_s()
    with _garbage_seldom_looked_for():
        simulation.run()
    return simulation.findings.results(clock.now_s() - started_s)


@contextmanager
def _garbage_seldom_looked_for() -> Iterator[None]:
    """Nearly nothing here is garbage that is not found at once; to look for the rest as often as usual takes 4 % of the time."""
    thresholds = gc.get_threshold()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


class Simulation:
    """`run` once."""

    def __init__(
        self,
        config: ClusterConfig,
        trace: Trace | ClosedTrace,
        options: SimulationOptions,
        watch: Watch | None,
    ) -> None:
        self._options, self._watch = options, watch
        self._timeline = Timeline()
        self._book: dict[RequestId, Arrival] = {}
        self._requests = 0
        self._here = 0
        self._news_s = 0.0
        _check_names(config, options)
        make = makes(options.model, self._timeline, config, self._book, self._told, options.seed)
        self._plant = Plant(self._timeline, options, seats(config), make)
        self._doors = [self._door(config, number) for number in range(options.front_doors)]
        self._dice = random.Random(f"{options.seed}/clients")
        self._clients = clients_of(trace, self._timeline, self._send)
        self.findings = Findings(config, trace.name, options, self._timeline, self._plant, self)

    @property
    def queued(self) -> int:
        """Requests that wait at the doors."""
        return sum(door.reception.door.queued for door in self._doors)

    @property
    def here(self) -> int:
        """Requests that have arrived and not ended."""
        return self._here

    def run(self) -> None:
        self._plant.open(self._doors)
        self._plant.rest()
        self._clients.start()
        self.findings.start()
        self._timeline.run(self._goes_on)
        self.findings.stop()
        for door in self._doors:
            assert not door.reception.ledger.charges, "a request is over and still charged"

    def _door(self, config: ClusterConfig, number: int) -> Entrance:
        index = None
        if self._options.knowledge in (Knowledge.SNAPSHOT, Knowledge.EXACT):
            snapshot = self._options.knowledge is Knowledge.SNAPSHOT and not self._plant.exact
            index = ToldIndex(self._plant.machines, self._plant.snapshots if snapshot else None)
        return Entrance(
            FrontDoorId(f"front-door-{number}"),
            config,
            self._timeline,
            self._plant.machines,
            self._book,
            random.Random(f"{self._options.seed}/{number}"),
            index=index,
            ledger=None if self._options.accounts else ReportsAlone(),
            network_s=self._options.network_s,
            suspect_s=math.inf if self._plant.exact else None,
        )

    def _send(self, arrival: Arrival, ended: Ended) -> None:
        request = RequestId(f"request-{self._requests}")
        self._requests += 1
        self._here += 1
        if self._here == 1:
            self._news_s = self._timeline.now_s()
            self._plant.wake()
        self._book[request] = arrival
        door = self._doors[self._dice.randrange(len(self._doors))]
        door.visit(arrival, request, partial(self._over, ended))

    def _over(self, ended: Ended, arrival: Arrival, record: RequestRecord) -> None:
        self._here -= 1
        if not self._here:
            self._plant.rest()
        self._news_s = self._timeline.now_s()
        # what is still on its way to a worker may ask for it
        self._timeline.call_later(self._options.network_s, self._forget, record.request)
        self.findings.add(arrival, record)
        ended()
        if self._watch is not None and self.findings.ended % WATCH_EVERY == 0:
            self._watch(self.findings.ended, self._timeline.now_s())

    def _told(self, stretch: Stretch) -> None:
        if stretch.request in self._book:
            self.findings.stretch(stretch)

    def _forget(self, request: RequestId) -> None:
        del self._book[request]
        self.findings.forget(request)

    def _goes_on(self) -> bool:
        if not self._here:
            return not self._clients.done
        waited_s = self._timeline.now_s() - self._news_s
        assert waited_s < STALL_S, f"{self._here} requests are here and none ends"
        return True


def _check_names(config: ClusterConfig, options: SimulationOptions) -> None:
    known = [endpoint.worker for endpoint in seats(config)]
    named = [("--fail", failure.worker) for failure in options.failures]
    named += [("--speed", worker) for worker in options.speeds]
    for option, worker in named:
        if worker not in known:
            hint = f"workers are called {known[0]} … {known[-1]}" if known else "there are none"
            raise OptionError(option, f"there is no worker {worker!r}", hint)
