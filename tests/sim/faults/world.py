"""One schedule: a cluster, its clients, and what befalls them, all of it determined by a number."""

import contextlib
import gc
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest import mock

from faults.chaos import Chaos, Theme
from faults.door import Client, Door, Order
from faults.invariants import Invariants
from faults.process import Process
from faults.story import Story
from faults.transport import Network, connect
from faults.worker import Worker
from tercet.config import (
    ClusterConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    TransferConfig,
)
from tercet.ids import RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.role import Role
from tercet.simulator.timeline import Timeline
from tercet.wire import Membership

LOOK_S = 0.1
END_S = 45.0
"""By then every request must have ended and everything must be at rest."""
LATE_CLIENTS = 0.3
"""How often somebody comes after most of the faults, and finds what caches have kept."""
SEATS = {
    WorkerId("prefill-0"): Role.PREFILL,
    WorkerId("prefill-1"): Role.PREFILL,
    WorkerId("decode-0"): Role.DECODE,
    WorkerId("decode-1"): Role.DECODE,
}


@dataclass(slots=True)
class Verdict:
    """What came of one schedule; `complaints` is empty when all went well."""

    seed: int
    complaints: list[str]
    lines: list[str]
    events: int
    seconds: float
    outcomes: dict[str, int] = field(default_factory=dict)


class World:
    """`play` it once."""

    def __init__(self, seed: int, theme: Theme | None = None, *, telling: bool = False) -> None:
        self.seed = seed
        self.timeline = Timeline()
        self.story = Story(self.timeline, wanted=telling)
        self.chaos = Chaos(seed, theme)
        self.config = config_for(self.chaos)
        self.network = Network(self.timeline, self.config.link, self.chaos, self.story)
        self.invariants = Invariants(self)
        self.complaints: list[str] = []
        self.workers: dict[WorkerId, Worker] = {}
        """The last life of each."""
        self.agents: dict[str, Worker] = {}
        """Those who live, by the names of their transfer agents."""
        self.clients: list[Client] = []
        self._lives = dict.fromkeys(SEATS, 0)
        self._retired: set[WorkerId] = set()
        self._doors = 0
        self._version = 0
        self._events = 0
        self._asleep = False

    def play(self) -> Verdict:
        self._set_up()
        self._guard(self.timeline.run, self._goes_on)
        if not self.complaints:
            self._guard(self.invariants.at_rest)
        for process in (*self.agents.values(), self.door):
            process.loop.kill()
        outcomes: dict[str, int] = {}
        for worker in self.agents.values():
            for outcome, count in worker.board.arrivals.outcomes.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
        return Verdict(
            self.seed,
            self.complaints,
            self.story.lines,
            self._events,
            self.timeline.now_s(),
            outcomes,
        )

    def blame(self, what: str) -> None:
        """Something is wrong. Raising would not do: production code catches what it can."""
        self.story.tell("WRONG", what)
        self.complaints.append(what)

    # ---- lives -------------------------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """It comes back after a while, a worker on the same address."""
        if not process.alive:
            return
        dice = self.chaos.dice
        if isinstance(process, Door):
            self._kill_door(process)
            return
        self.network.kill(process, silent=dice.random() < 0.3)
        del self.agents[process.name]
        self.timeline.call_later(dice.uniform(0.05, 1.5), self._restart, process.endpoint.worker)

    def retire(self, seat: WorkerId) -> None:
        """The controller wants it no more, although it works; then it has enough of that."""
        self.story.tell(seat, "is retired")
        self._retired.add(seat)
        self._publish(0.0)
        for_s = self.chaos.dice.uniform(0.2, 1.5)
        self.timeline.call_later(for_s, self._reinstate, seat)

    def _reinstate(self, seat: WorkerId) -> None:
        self._retired.discard(seat)
        if self.chaos.dice.random() < 0.5:
            self.kill(self.workers[seat])
        else:
            self._publish(0.0)

    def _kill_door(self, door: Door) -> None:
        """Its clients are gone with it; others come to the next one."""
        self.network.kill(door)
        for client in door.clients:
            client.over = client.left = True
        self.timeline.call_later(self.chaos.dice.uniform(0.05, 0.5), self._open_door)

    def _open_door(self) -> None:
        self._doors += 1
        self.door = Door(self, self._doors)
        self._publish(0.0)

    def _arrive(self, client: Client) -> None:
        if self.door.alive:
            self.door.clients.append(client)
            self.door.loop.call_soon(client.enter, self.door)
        else:
            self.timeline.call_later(0.1, self._arrive, client)

    def _restart(self, seat: WorkerId) -> None:
        self._start(seat)
        self._publish(self.chaos.dice.uniform(0.0, 0.5))

    def _start(self, seat: WorkerId) -> None:
        self._lives[seat] += 1
        worker = Worker(self, seat, SEATS[seat], self._lives[seat])
        self.workers[seat] = self.agents[worker.name] = worker
        self.network.servers[seat] = worker
        self.network.silent.discard(seat)
        self.story.tell(worker, "lives")

    def _publish(self, delay_s: float) -> None:
        self._version += 1
        lives = tuple(
            worker.endpoint for seat, worker in self.workers.items() if seat not in self._retired
        )
        self.door.loop.call_later(delay_s, self.door.update, Membership(self._version, lives))

    # ---- the schedule ------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        for seat in SEATS:
            self._start(seat)
        self._open_door()
        for order in orders_for(self.chaos):
            client = Client(self, order)
            self.clients.append(client)
            self.timeline.call_at(order.at_s, self._arrive, client)
        self.chaos.begin(self)
        self.timeline.call_later(LOOK_S, self._look)

    def _guard(self, call: object, *args: object) -> None:
        """Whatever an event raises is a bug of ours."""
        try:
            call(*args)
        except Exception as error:
            self.blame(f"{type(error).__name__}: {error}")
            if self.story.wanted:
                self.story.lines += traceback.format_exception(error)

    def _goes_on(self) -> bool:
        self._events += 1
        self.invariants.after_event()
        return not (self.complaints or self._asleep)

    def _look(self) -> None:
        """Is everybody served and everything at rest?"""
        waiting = [client for client in self.clients if not client.left]
        stopped = any(worker.stopped for worker in self.agents.values()) or self.door.stopped
        busy = waiting or stopped
        left = [] if busy else self.invariants.leftovers()
        if not busy and not left:
            self._asleep = True
        elif self.timeline.now_s() < END_S:
            self.timeline.call_later(LOOK_S, self._look)
        else:
            for client in waiting:
                self.blame(
                    f"{client.spec.id} has not ended: {client.pilot and client.pilot._flight}"
                )
            for line in left:
                self.blame(f"not at rest: {line}")


# ---- what a number means ---------------------------------------------------------------------------------------------


def config_for(chaos: Chaos) -> ClusterConfig:
    dice, theme = chaos.dice, chaos.climate.theme
    slow = theme is Theme.SLOW
    engine = EngineConfig(
        block_tokens=4,
        kv_blocks=dice.choice((7, 8) if theme is Theme.PRESSURE else (11, 14, 20, 40)),
        step_tokens_max=8,
        running_max=dice.choice((2, 4)),
        waiting_max=4,
    )
    return ClusterConfig(
        model=ModelConfig(path="none"),
        engine=engine,
        pools=Pools(prefill=PoolConfig(replicas=2), decode=PoolConfig(replicas=2)),
        router=RouterConfig(
            policy=dice.choice(("round_robin", "random", "least_pending")),
            local_prefill_tokens_max=dice.choice((0, 5)),
            replays_max=20,
        ),
        transfer=TransferConfig(
            backend="fake",
            lease_s=0.6 if slow else 2.0,
            renew_s=0.1 if slow else 0.4,
            wait_s=2.0 if slow else 0.4,
        ),
        link=LinkConfig(heartbeat_s=0.3, dead_after_s=1.0, report_period_s=0.1 if slow else 0.5),
        front_door=FrontDoorConfig(queue_wait_s_max=30.0),
    )


def orders_for(chaos: Chaos) -> list[Order]:
    pressed = chaos.climate.theme is Theme.PRESSURE
    count = chaos.dice.choice((4, 6) if pressed else (1, 2, 3, 4))
    late = chaos.dice.random() < LATE_CLIENTS
    return [_order(chaos, number, 0.3) for number in range(count)] + [
        _order(chaos, count + number, 2.5) for number in range(late)
    ]


def _order(chaos: Chaos, number: int, within_s: float) -> Order:
    dice, pressed = chaos.dice, chaos.climate.theme is Theme.PRESSURE
    family = 1000 * dice.randrange(1, 9 if pressed else 3)
    length = dice.randrange(15, 23) if pressed else dice.randrange(1, 23)
    prompt = [family + position for position in range(length)]
    prompt += [dice.randrange(1000) for _ in range(dice.choice((0, 0, 1)))]
    sampling = Sampling(
        max_tokens=dice.choice((2, 4) if pressed else (1, 2, 6, 12)),
        logprobs=dice.choice((None, None, 0)),
    )
    return Order(
        RequestSpec(RequestId(f"r{number}"), prompt, sampling, priority=dice.choice((0, 0, 1))),
        at_s=dice.uniform(0.0, within_s),
        leaves_after_s=dice.uniform(0.0, 0.3)
        if dice.random() < (0.3 if pressed else 0.1)
        else None,
        deadline_s=dice.uniform(0.05, 0.5) if dice.random() < 0.05 else None,
    )


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Sockets, random names and logs are out of the way as long as this lasts."""
    log = logging.getLogger("tercet")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    with (
        mock.patch("tercet.workers.sources.connect", connect),
        mock.patch("tercet.router.session.connect", connect),
        mock.patch("tercet.router.session.random", mock.Mock(random=lambda: 0.5)),
        mock.patch("tercet.router.sessions.host_id", return_value="here"),
        mock.patch("tercet.router.sessions.new_incarnation", return_value="x"),
        mock.patch("tercet.workers.interjection.SHARE", 1),  # or hardly any step were long enough
    ):
        try:
            yield
        finally:
            log.setLevel(level)
            gc.collect()


def play(seed: int, theme: Theme | None = None, *, telling: bool = False) -> Verdict:
    return World(seed, theme, telling=telling).play()
