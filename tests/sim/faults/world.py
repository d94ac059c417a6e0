"""One schedule: a cluster, its clients, and what befalls them, all of it determined by a number."""

import asyncio
import contextlib
import gc
import logging
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from unittest import mock

from faults.calls import Call
from faults.chaos import Chaos
from faults.climate import Theme
from faults.controller import Controller
from faults.door import Client, Door, Order
from faults.fleet import Actor
from faults.invariants import Invariants
from faults.process import Process
from faults.story import Story
from faults.transport import Network, connect
from faults.worker import Worker
from tercet.cluster.events import Desired
from tercet.cluster.status import FrontDoorReport
from tercet.config import (
    ClusterConfig,
    ControlConfig,
    EngineConfig,
    FrontDoorConfig,
    LinkConfig,
    MigrationConfig,
    ModelConfig,
    PoolConfig,
    Pools,
    RouterConfig,
    TransferConfig,
)
from tercet.errors import PeerRefused
from tercet.ids import Incarnation, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.simulator.timeline import Timeline
from tercet.wire import Membership

LOOK_S = 0.1
END_S = 45.0
"""By then every request must have ended and everything must be at rest."""
LATE_CLIENTS = 0.3
"""How often somebody comes after most of the faults, and finds what caches have kept."""


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
        self.chaos.world = self
        self.config = config_for(self.chaos)
        self.network = Network(self.timeline, self.config.link, self.chaos, self.story)
        self.invariants = Invariants(self)
        self.complaints: list[str] = []
        self.actors: dict[Incarnation, Actor] = {}
        """Processes of workers, whether or not somebody listens there."""
        self.agents: dict[str, Worker] = {}
        """The workers that live, by the names of their transfer agents."""
        self.incarnations: set[Incarnation] = set()
        """All that there ever were."""
        self.wish: Desired | None = None
        """What controllers remember of the operator's."""
        self.operator = Process("operator", self.network)
        self.clients: list[Client] = []
        self.doors: list[Door] = []
        self._lives: Counter[str] = Counter()
        self._events = 0
        self._asleep = False

    def play(self) -> Verdict:
        self._set_up()
        self._guard(self.timeline.run, self._goes_on)
        if not self.complaints:
            self._guard(self.invariants.at_rest)
        self._end_all()
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
        """It comes back after a while: doors and controllers by themselves, workers by a controller."""
        dice = self.chaos.dice
        if not process.alive:
            return
        if isinstance(process, Door):
            self._kill_door(process)
        elif isinstance(process, Controller):
            process.die()
            self.timeline.call_later(dice.uniform(0.02, 0.5), self._open_controller)
        elif dice.random() < 0.1:
            process.actor.end(PeerRefused("WorkerFailed: the engine thread has ended"))
        else:
            process.actor.die(silent=dice.random() < 0.3)

    def open_worker(self, actor: Actor) -> Worker:
        """It has loaded its model and listens."""
        worker = Worker(self, actor)
        self.agents[worker.name] = worker
        self.network.servers[worker.address] = worker
        self.network.silent.discard(worker.address)
        self.story.tell(worker, "lives")
        return worker

    def new_incarnation(self) -> Incarnation:
        return Incarnation(f"{self._life('worker')}")

    def _kill_door(self, door: Door) -> None:
        """Its clients are gone with it; others come to the next one."""
        self.network.kill(door)
        for client in door.clients:
            client.over = client.left = True
        self.timeline.call_later(self.chaos.dice.uniform(0.05, 0.5), self._open_door, door.slot)

    def _open_door(self, slot: int) -> None:
        door = Door(self, slot, self._life(f"door-{slot}"))
        self.doors[slot : slot + 1] = [door]

    def _open_controller(self) -> None:
        life = self._life("controller")
        self.controller = Controller(self, life, self.chaos.wall_clock_s())
        self.story.tell(self.controller, "lives")

    def _life(self, whose: str) -> int:
        self._lives[whose] += 1
        return self._lives[whose]

    def _end_all(self) -> None:
        """Nobody is left with coroutines that would complain."""
        self.controller.loop.end()
        for process in (*self.agents.values(), *self.doors, self.operator):
            process.loop.kill()
        self.timeline.run(lambda: True, self.timeline.now_s())

    # ---- who asks whom -----------------------------------------------------------------------------------------------

    def poll(
        self, door: Door, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> asyncio.Future[Membership | None]:
        """A front door asks the controller; it may ask in vain."""
        call = Call(door, self.controller.calls)
        takes_s = self.chaos.poll_s()
        if takes_s is not None:
            args = (call, "membership", after_version, wait_s, report)
            self.timeline.call_later(takes_s, self.controller.take, *args)
        return call.future

    def order(self, verb: str, *args: object) -> None:
        """The operator wants something; whether that comes about nobody promises."""
        call = Call(self.operator, self.controller.calls)
        call.future.add_done_callback(partial(self._answered, verb, args))
        takes_s = self.chaos.latency_s()
        self.timeline.call_later(takes_s, self.controller.take, call, verb, *args)

    def _answered(self, verb: str, args: object, answer: asyncio.Future[str]) -> None:
        said = answer.exception() or answer.result() or "done"
        self.story.tell("operator", f"{verb} {args}: {said}")

    def _arrive(self, client: Client) -> None:
        door = self.doors[client.order.door]
        if door.alive:
            door.clients.append(client)
            door.loop.call_soon(client.enter, door)
        else:
            self.timeline.call_later(0.1, self._arrive, client)

    # ---- the schedule ------------------------------------------------------------------------------------------------

    def _set_up(self) -> None:
        self._open_controller()
        for slot in range(self.chaos.climate.doors):
            self._open_door(slot)
        for order in orders_for(self.chaos):
            client = Client(self, order)
            self.clients.append(client)
            self.timeline.call_at(order.at_s, self._arrive, client)
        self.chaos.begin()
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
        processes = (*self.agents.values(), *self.doors, self.controller)
        stopped = any(process.stopped or not process.alive for process in processes)
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
    kv_blocks = {Theme.PRESSURE: (7, 8), Theme.PACKED: (8, 9, 10, 12)}.get(theme, (11, 14, 20, 40))
    engine = EngineConfig(
        block_tokens=4,
        kv_blocks=dice.choice(kv_blocks),
        step_tokens_max=8,
        running_max=4 if chaos.climate.busy else dice.choice((2, 4)),
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
        control=control_for(theme),
        migration=MigrationConfig(
            enabled=chaos.climate.relief,
            period_s=0.15,
            low_steps=8.0,
            high_steps=8.0,
            tokens_max=64,
            dwell_s=0.1,
        ),
    )


def control_for(theme: Theme) -> ControlConfig:
    """Impatient where the controller's own mistakes are wanted."""
    hasty = theme is Theme.CONTROL
    return ControlConfig(
        health_period_s=0.3 if hasty else 1.5,
        health_timeout_s=0.3 if hasty else 1.0,
        restart_backoff_s=0.05,
        restart_backoff_s_max=0.4,
        start_timeout_s=1.0,
        drain_timeout_s=2.0,
    )


def orders_for(chaos: Chaos) -> list[Order]:
    theme, busy = chaos.climate.theme, chaos.climate.busy
    many = busy or theme is Theme.PRESSURE
    count = chaos.dice.choice((4, 6) if many else (1, 2, 3, 4))
    within_s = 1.0 if theme is Theme.CONTROL else 0.1 if busy else 0.3
    late = chaos.dice.random() < LATE_CLIENTS
    return [_order(chaos, number, within_s) for number in range(count)] + [
        _order(chaos, count + number, 2.5) for number in range(late)
    ]


def _order(chaos: Chaos, number: int, within_s: float) -> Order:
    dice, pressed = chaos.dice, chaos.climate.theme is Theme.PRESSURE
    family = 1000 * dice.randrange(1, 9 if pressed else 3)
    length = dice.randrange(15, 23) if pressed else dice.randrange(1, 23)
    outputs: tuple[int, ...] = (2, 4) if pressed else (1, 2, 6, 12)
    if chaos.climate.busy:
        length, outputs = dice.randrange(4, 13), (8, 12)
    prompt = [family + position for position in range(length)]
    prompt += [dice.randrange(1000) for _ in range(dice.choice((0, 0, 1)))]
    sampling = Sampling(
        max_tokens=dice.choice(outputs),
        logprobs=dice.choice((None, None, 0)),
    )
    return Order(
        RequestSpec(RequestId(f"r{number}"), prompt, sampling, priority=dice.choice((0, 0, 1))),
        at_s=dice.uniform(0.0, within_s),
        door=dice.randrange(chaos.climate.doors),
        leaves_after_s=dice.uniform(0.0, 0.3)
        if dice.random() < (0.3 if pressed else 0.1)
        else None,
        deadline_s=dice.uniform(0.05, 0.5) if dice.random() < 0.05 else None,
    )


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Sockets, random names and logs are out of the way as long as this lasts."""
    log = logging.getLogger("tercet")
    level, thresholds = log.level, gc.get_threshold()
    gc.freeze()  # a world is full of cycles, and what is not of it need not be looked through for them
    gc.set_threshold(20_000, 20, 100)
    log.setLevel(logging.CRITICAL + 1)
    with (
        mock.patch("tercet.workers.sources.connect", connect),
        mock.patch("tercet.router.session.connect", connect),
        mock.patch("tercet.router.session.random", mock.Mock(random=lambda: 0.5)),
        mock.patch("tercet.router.sessions.host_id", return_value="here"),
        mock.patch("tercet.router.sessions.new_incarnation", return_value="x"),
        mock.patch("tercet.workers.interjection.SHARE", 1),  # or hardly any step were long enough
        mock.patch("tercet.cluster.membership_feed.POLL_S", 0.5),
        mock.patch("tercet.cluster.membership_feed.RETRY_S", 0.05),
        mock.patch("tercet.cluster.membership_feed.RETRY_S_MAX", 0.2),
        mock.patch("tercet.cluster.supervisor.STOP_TIMEOUT_S", 1.0),
        mock.patch("tercet.cluster.drainage.POLL_S", 0.05),
    ):
        try:
            yield
        finally:
            log.setLevel(level)
            gc.set_threshold(*thresholds)
            gc.unfreeze()
            gc.collect()


def play(seed: int, theme: Theme | None = None, *, telling: bool = False) -> Verdict:
    return World(seed, theme, telling=telling).play()
