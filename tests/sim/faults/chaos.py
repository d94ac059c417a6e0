"""The adversary: decides by its seed alone what goes wrong, and at which point of the protocol."""

import random

from faults.climate import (
    ACTS,
    CALLS,
    COMMON,
    PEER_POINTS,
    POINTS,
    SHARES,
    Act,
    Climate,
    Fate,
    Theme,
    Trap,
    is_decode,
)
from faults.process import Process
from faults.transport import Wire
from tercet.config import ClusterConfig
from tercet.errors import MoveRefused, PeerRefused
from tercet.wire import Message, Resume, Tokens
from tercet.workers.transfer.base import Kind

LATENCY_S = (2e-4, 2e-3)
STEP_S = (2e-3, 1.5e-2)
NEVER_S = 1e3
DAWN_S = 0.03
CALM_AFTER_S = 3.0
"""No fault begins later, so that from then on progress can be asked for."""


class Chaos:
    """`dice` is the only source of chance in a world."""

    def __init__(self, seed: int, theme: Theme | None = None) -> None:
        self.dice = random.Random(seed)
        self.world: object = None
        self.same_places = self.dice.random() < 0.5
        """Whether every life of a worker listens where the one before did."""
        self._failing: set[Process] = set()
        self.climate = self._draw_climate(theme or self.dice.choices(tuple(Theme), SHARES)[0])

    def _draw_climate(self, theme: Theme) -> Climate:
        dice = self.dice
        if theme is Theme.SLOW:
            return Climate(theme, mobility=0.1)
        if theme is Theme.DOORS:
            mobility = dice.choice((0.05, 0.3))
            return Climate(theme, mobility=mobility, moves=1, doors=2, door_kills=1)
        climate = Climate(
            theme,
            late_messages=dice.choice((0.0, 0.0, 0.01, 0.05)),
            bad_reads=dice.choice((0.0, 0.1, 0.4)),
            failing_steps=dice.choice((0.0, 0.0, 0.0, 0.02)),
            slow_steps=dice.choice((0.0, 0.0, 0.02)),
            mobility=dice.choice((0.0, 0.05, 0.2, 0.5)),
            moves=dice.randrange(2),
            kills=dice.choice((0, 0, 1, 2)),
            stops=dice.choice((0, 0, 1)),
            drains=dice.choice((0, 0, 0, 1)),
            scales=dice.choice((0, 0, 0, 0, 0, 1)),
            doors=dice.choice((1, 1, 1, 1, 2)),
            door_kills=dice.choice((0,) * 11 + (1,)),
            controller_kills=dice.choice((0,) * 11 + (1,)),
        )
        climate.packed = theme is Theme.PACKED or dice.random() < 0.1
        climate.relief = theme is Theme.ANYTHING and dice.random() < 0.05
        climate.reliefs = 0.1 if climate.relief else 0.0
        if theme is Theme.PACKED:
            climate.mobility = 0.3
            trap = Trap("Took", dice.choice((1, 2)), dice.choice((Act.LOSE, Act.LATE)))
            climate.traps.setdefault("Took", []).append(trap)
            cuts = [Trap("Commit", dice.choice((1, 2, 3)), Act.CUT_AFTER) for _ in range(2)]
            climate.traps.setdefault("Commit", []).extend(cuts)
            climate.bad_reads = 0.4
        if theme is Theme.CONTROL:
            self._draw_control(climate)
        if theme is Theme.PRESSURE:
            climate.bad_reads, climate.late_messages, climate.failing_steps = 0.4, 0.05, 0.01
            climate.betrayals = 0.3
            for countdown in (1, 2, 3):
                climate.traps.setdefault("Gone", []).append(Trap("Gone", countdown, Act.LATE))
        for _ in range(dice.randrange(4)):
            point = dice.choice(POINTS if dice.random() < 0.3 else COMMON)
            live = point in PEER_POINTS and dice.random() < 0.7
            trap = Trap(point, dice.choice((1, 1, 2, 3, 5)), dice.choice(ACTS), live)
            climate.traps.setdefault(point, []).append(trap)
        return climate

    def _draw_control(self, climate: Climate) -> None:
        dice = self.dice
        climate.controller_kills, climate.scales = dice.choice((1, 1, 2)), dice.choice((0, 1, 2))
        climate.drains, climate.kills = dice.choice((0, 1, 2)), dice.choice((0, 1, 2))
        climate.late_calls, climate.lost_polls = dice.choice((0.0, 0.05, 0.2)), 0.1
        climate.bad_starts, climate.behind = dice.choice((0.0, 0.2)), dice.choice((0.0, 0.5))
        climate.moves, climate.mobility = 1, 0.1
        climate.doors = dice.choice((1, 2))
        for _ in range(dice.randrange(3)):
            trap = Trap(dice.choice(CALLS), dice.choice((1, 1, 2, 3)), Act.KILL_SENDER)
            climate.traps.setdefault(trap.point, []).append(trap)

    def begin(self) -> None:
        """Whatever is bound to times and not to messages."""
        world, climate, dice = self.world, self.climate, self.dice
        for count, act in (
            (climate.moves, self._move_any),
            (climate.kills, self._kill_any),
            (climate.stops, self._stop_any),
            (climate.drains, self._drain_any),
            (climate.scales, self._scale),
            (climate.door_kills, self._kill_door),
            (climate.controller_kills, self._kill_controller),
        ):
            within_s = 1.5 if climate.theme is Theme.CONTROL else 0.6
            for _ in range(count):
                world.timeline.call_at(dice.uniform(0.0, within_s), act)

    @property
    def calm(self) -> bool:
        return self.world.timeline.now_s() > CALM_AFTER_S

    # ---- what the network asks ---------------------------------------------------------------------------------------

    def latency_s(self) -> float:
        return self.dice.uniform(*LATENCY_S)

    def notices_s(self) -> float:
        """How long an end of a broken connection believes that it stands."""
        return self.dice.choice((0.0, self.dice.uniform(0.0, self._config.link.dead_after_s)))

    def carry(
        self, wire: Wire, sender: Process, receiver: Process, message: Message
    ) -> float | None:
        """How long a message takes; None if it is lost."""
        delay_s = self.latency_s()
        if self.calm:
            return delay_s
        if self.climate.late_messages and self.dice.random() < self.climate.late_messages:
            delay_s += self.dice.uniform(0.0, 0.5)
        if type(message) is Tokens and self.dice.random() < self.climate.mobility:
            self.world.timeline.call_later(delay_s, self._move, message.request)
        if type(message) is Tokens and self.climate.reliefs and is_decode(sender):
            self._relieve(sender)
        for trap in self.climate.traps.get(type(message).__name__, ()):
            if trap.springs(sender, receiver):
                return self._spring(trap.act, wire, sender, receiver, message, delay_s)
        return delay_s

    def _spring(
        self,
        act: Act,
        wire: Wire,
        sender: Process,
        receiver: Process,
        message: Message,
        delay_s: float,
    ) -> float | None:
        world, now = self.world, self.world.timeline.call_later
        world.story.tell("chaos", f"{act} at {type(message).__name__} of {sender} to {receiver}")
        match act:
            case Act.LOSE:
                return None
            case Act.LATE:
                if isinstance(
                    message, Resume
                ):  # what is frozen says nothing that could spring a trap
                    now(self.dice.uniform(0.0, 5e-3), self._move, message.request)
                delay_s += self.dice.choice((self.dice.uniform(0.001, 0.02), 0.05, 0.3, 1.2))
            case Act.KILL_SENDER:
                now(0.0, world.kill, sender)
            case Act.KILL_RECEIVER:
                now(0.0, world.kill, receiver)
            case Act.KILL_RECEIVER_AFTER:
                now(delay_s + self.dice.uniform(1e-6, 3e-3), world.kill, receiver)
            case Act.STOP_SENDER:
                now(0.0, self._stop, sender)
            case Act.STOP_RECEIVER:
                now(self.dice.choice((0.0, delay_s)), self._stop, receiver)
            case Act.CUT_AFTER:
                now(delay_s * self.dice.random() * 2, wire.snap, "cut")
            case Act.MOVE:
                now(0.0, self._move, getattr(message, "request", None))
            case Act.DRAIN:
                now(0.0, self._drain, sender)
        return delay_s

    def read(self, kind: Kind, source: Process) -> Fate:
        """What becomes of a read that is posted now."""
        dice, bad = self.dice, self.climate.bad_reads
        if self.climate.theme is Theme.SLOW:
            return Fate(dice.uniform(0.1, 0.7))
        if kind is Kind.WORDS:
            lasts_s = dice.uniform(1e-4, 5e-4)
            return Fate(lasts_s + (dice.uniform(0.0, 0.8) if dice.random() < bad / 4 else 0.0))
        lasts_s = dice.uniform(5e-4, 8e-3)
        if self.climate.betrayals and not self.calm and dice.random() < self.climate.betrayals:
            self._failing.add(source)
            return Fate(lasts_s + dice.uniform(0.02, 0.3))
        if not bad or self.calm or dice.random() >= bad:
            return Fate(lasts_s)
        longer_s = dice.choice((0.0, dice.uniform(0.0, 0.3), dice.uniform(0.3, 1.5)))
        lasts_s += longer_s
        half_s = dice.choice((0.0, lasts_s * dice.random()))
        return Fate(lasts_s, half_s, dice.choice(("", "", "the read failed")))

    # ---- what Ray asks -----------------------------------------------------------------------------------------------

    def reaches_s(self, verb: str, controller: Process) -> float | None:
        """How long a controller's call takes to get where it shall; None if it is not made, since the controller dies."""
        if not controller.alive:
            return None
        takes_s = self.returns_s()
        if self.calm or self._dawn:
            return takes_s
        for trap in self.climate.traps.get(verb, ()):
            if trap.springs(controller, controller):
                self.world.story.tell("chaos", f"kills {controller} when it calls {verb}")
                self.world.timeline.call_later(0.0, self.world.kill, controller)
                return self.dice.choice((None, takes_s))
        return takes_s

    def returns_s(self) -> float:
        takes_s = self.latency_s()
        if self.climate.late_calls and not (self.calm or self._dawn):
            late = self.dice.random() < self.climate.late_calls
            takes_s += self.dice.uniform(0.0, 1.0) if late else 0.0
        return takes_s

    def poll_s(self) -> float | None:
        """The same of a front door's poll, which may be lost."""
        lost = self.climate.lost_polls
        if lost and not self.calm and self.dice.random() < lost:
            return None
        return self.returns_s()

    def ray_notices_s(self, *, silent: bool = False) -> float:
        """How long it takes until who waits for an actor is told of its death; longer where its machine is gone as well."""
        if silent:
            return self.dice.uniform(0.3, 2.0)
        return self.dice.choice((0.0, self.dice.uniform(0.0, 0.3)))

    def placing_s(self) -> float:
        return self._takes_s(0.2)

    def loading(self) -> tuple[float, Exception | None]:
        """How long a worker takes to start, and why it cannot."""
        takes_s, bad = self._takes_s(0.3), self.climate.bad_starts
        if not bad or self.calm or self._dawn or self.dice.random() >= bad:
            return takes_s, None
        failure = PeerRefused("OutOfMemoryError: no room for the model")
        return takes_s + self.dice.choice((0.0, NEVER_S)), failure

    def wall_clock_s(self) -> float:
        """Of a controller's machine: a second passed before this world began."""
        now_s = 1.0 + self.world.timeline.now_s()
        behind = self.climate.behind
        return now_s * self.dice.random() if behind and self.dice.random() < behind else now_s

    def _takes_s(self, longest_s: float) -> float:
        return self.dice.uniform(1e-4, 1e-3 if self._dawn else longest_s)

    @property
    def _dawn(self) -> bool:
        """At first all is quick, so that there is something to disturb."""
        return self.world.timeline.now_s() < DAWN_S

    # ---- what packing asks -------------------------------------------------------------------------------------------

    def slots(self) -> int:
        """Of a worker's staging memory; 0 where nothing is packed."""
        return self.dice.choice((1, 2, 4, 8)) if self.climate.packed else 0

    def packing_s(self) -> float:
        return self.dice.uniform(1e-4, self.dice.choice((2e-3, 5e-2)))

    # ---- what engines ask --------------------------------------------------------------------------------------------

    def step_s(self) -> float:
        step_s = self.dice.uniform(*STEP_S)
        if self.climate.slow_steps and self.dice.random() < self.climate.slow_steps:
            step_s += self.dice.uniform(0.1, 1.0)
        return step_s

    def step_fails(self, process: Process) -> bool:
        if process in self._failing:
            self._failing.remove(process)
            return True
        rate = self.climate.failing_steps
        return bool(rate) and not self.calm and self.dice.random() < rate

    # ---- deeds -------------------------------------------------------------------------------------------------------

    @property
    def _config(self) -> ClusterConfig:
        return self.world.config

    def _any_worker(self) -> Process | None:
        alive = list(self.world.agents.values())
        return self.dice.choice(alive) if alive else None

    def _kill_any(self) -> None:
        if worker := self._any_worker():
            self.world.kill(worker)

    def _relieve(self, source: Process) -> None:
        """As if the planner had looked at other figures."""
        others = [one for one in self.world.agents.values() if is_decode(one) and one is not source]
        if others and self.dice.random() < self.climate.reliefs:
            tokens, to = self.dice.randrange(10, 60), self.dice.choice(others).endpoint.worker
            self.world.story.tell(source, f"shall give {tokens} tokens to {to}")
            source.loop.call_soon(source.board.relieve, tokens, to)

    def _stop_any(self) -> None:
        if worker := self._any_worker():
            self._stop(worker)

    def _drain_any(self) -> None:
        if worker := self._any_worker():
            self._drain(worker)

    def _scale(self) -> None:
        """Not seldom to what there was before."""
        prefill, decode = self.dice.choice((None, 0, 1, 2, 3)), self.dice.choice((1, 2, 2, 3))
        self.world.order("scale", prefill, decode)

    def _kill_door(self) -> None:
        self.world.kill(self.dice.choice(self.world.doors))

    def _kill_controller(self) -> None:
        self.world.kill(self.world.controller)

    def _stop(self, process: Process) -> None:
        if process.alive and not process.stopped:
            self.world.network.stop(process)
            for_s = self.dice.choice((0.05, 0.4, 1.1, 1.6, 3.0))
            self.world.timeline.call_later(for_s, self.world.network.resume, process)

    def _drain(self, process: Process) -> None:
        """The operator wants to be rid of what it has."""
        if process.alive and hasattr(process, "board"):
            self.world.order("drain", process.actor.seat)

    def _move_any(self) -> None:
        running = [client.spec.id for client in self.world.clients if not client.over]
        if running:
            self._move(self.dice.choice(running))

    def _move(self, request: str | None) -> None:
        for client in self.world.clients:
            if client.spec.id == request and client.pilot is not None:
                client.door.loop.call_soon(self._relocate, client.door, request)

    def _relocate(self, door: Process, request: str | None) -> None:
        try:
            to = door.reception.relocate(request)
        except MoveRefused as refused:
            self.world.story.tell("chaos", f"{request} does not move: {refused}")
        else:
            self.world.story.tell("chaos", f"{request} shall move to {to.worker}")
