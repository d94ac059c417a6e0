"""The adversary: decides by its seed alone what goes wrong, and at which point of the protocol."""

import random
from dataclasses import dataclass, field
from enum import StrEnum

from faults.process import Process
from faults.transport import Wire
from tercet.config import ClusterConfig
from tercet.errors import MoveRefused
from tercet.wire import Message, Resume, Tokens
from tercet.workers.transfer.base import Kind

LATENCY_S = (2e-4, 2e-3)
STEP_S = (2e-3, 1.5e-2)
CALM_AFTER_S = 3.0
"""No fault begins later, so that from then on progress can be asked for."""

POINTS = [
    "Submit",
    "Adopt",
    "Started",
    "Tokens",
    "HandedOff",
    "Refused",
    "Stalled",
    "Failed",
    "Resume",
    "Cancel",
    "Pull",
    "Freeze",
    "Ready",
    "Commit",
    "Release",
    "Renew",
    "Gone",
]
"""The messages at which something may go wrong."""
PEER_POINTS = ["Pull", "Freeze", "Ready", "Commit", "Release", "Gone"]
COMMON = [
    "Tokens",
    "Pull",
    "Ready",
    "Commit",
    "Release",
    "Freeze",
    "Adopt",
    "HandedOff",
    "Commit",
    "Release",
]
"""Those that come in nearly every schedule."""


class Act(StrEnum):
    """What goes wrong when a message is sent."""

    LOSE = "lose"
    LATE = "late"
    KILL_SENDER = "kill sender"
    KILL_RECEIVER = "kill receiver"
    KILL_RECEIVER_AFTER = "kill receiver after"
    STOP_SENDER = "stop sender"
    STOP_RECEIVER = "stop receiver"
    CUT_AFTER = "cut after"
    MOVE = "move"
    DRAIN = "drain"


ACTS = (
    *(Act.LOSE, Act.LOSE, Act.LATE, Act.LATE, Act.KILL_SENDER, Act.KILL_RECEIVER),
    *(Act.KILL_RECEIVER_AFTER, Act.STOP_SENDER, Act.STOP_RECEIVER, Act.CUT_AFTER),
    *(Act.MOVE, Act.MOVE, Act.DRAIN),
)


@dataclass(slots=True)
class Trap:
    """Springs when a message of this kind is sent for the `countdown`-th time."""

    point: str
    countdown: int
    act: Act
    of_live_moves: bool = False
    """Only between two decode workers: there every message is a live move's."""

    def springs(self, sender: Process, receiver: Process) -> bool:
        if self.of_live_moves and not (is_decode(sender) and is_decode(receiver)):
            return False
        self.countdown -= 1
        return self.countdown == 0


def is_decode(process: Process) -> bool:
    return process.name.startswith("decode")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one read."""

    lasts_s: float
    half_s: float = 0.0
    """When the first half is copied; 0 if all is copied at the end."""
    failure: str = ""


class Theme(StrEnum):
    """What a schedule is about."""

    ANYTHING = "anything"
    PRESSURE = "pressure"
    """Many requests, few blocks: what is given up is soon used again."""
    SLOW = "slow"
    """A network so slow that leases must be renewed, and no fault besides."""


SHARES = (88, 9, 3)
"""How many of a hundred schedules are about each."""


@dataclass(slots=True)
class Climate:
    """How bad it is in this schedule."""

    theme: Theme = Theme.ANYTHING
    late_messages: float = 0.0
    bad_reads: float = 0.0
    failing_steps: float = 0.0
    slow_steps: float = 0.0
    betrayals: float = 0.0
    """How likely a source's next step fails when somebody begins to read from it."""
    mobility: float = 0.0
    """How likely a request is to be moved when a worker has sent tokens of it."""
    moves: int = 0
    kills: int = 0
    stops: int = 0
    drains: int = 0
    retirements: int = 0
    door_kills: int = 0
    traps: dict[str, list[Trap]] = field(default_factory=dict)


class Chaos:
    """`dice` is the only source of chance in a world."""

    def __init__(self, seed: int, theme: Theme | None = None) -> None:
        self.dice = random.Random(seed)
        self.world: object = None
        self._failing: set[Process] = set()
        self.climate = self._draw_climate(theme or self.dice.choices(tuple(Theme), SHARES)[0])

    def _draw_climate(self, theme: Theme) -> Climate:
        dice = self.dice
        if theme is Theme.SLOW:
            return Climate(theme, mobility=0.1)
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
            retirements=dice.choice((0, 0, 0, 0, 0, 1)),
            door_kills=dice.choice((0,) * 11 + (1,)),
        )
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

    def begin(self, world: object) -> None:
        """Whatever is bound to times and not to messages."""
        self.world, climate, dice = world, self.climate, self.dice
        for count, act in (
            (climate.moves, self._move_any),
            (climate.kills, self._kill_any),
            (climate.stops, self._stop_any),
            (climate.drains, self._drain_any),
            (climate.retirements, self._retire_any),
            (climate.door_kills, self._kill_door),
        ):
            for _ in range(count):
                world.timeline.call_at(dice.uniform(0.0, 0.6), act)

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
        alive = [worker for worker in self.world.workers.values() if worker.alive]
        return self.dice.choice(alive) if alive else None

    def _kill_any(self) -> None:
        if worker := self._any_worker():
            self.world.kill(worker)

    def _stop_any(self) -> None:
        if worker := self._any_worker():
            self._stop(worker)

    def _drain_any(self) -> None:
        if worker := self._any_worker():
            self._drain(worker)

    def _retire_any(self) -> None:
        if worker := self._any_worker():
            self.world.retire(worker.endpoint.worker)

    def _kill_door(self) -> None:
        self.world.kill(self.world.door)

    def _stop(self, process: Process) -> None:
        if process.alive and not process.stopped:
            self.world.network.stop(process)
            for_s = self.dice.choice((0.05, 0.4, 1.1, 1.6, 3.0))
            self.world.timeline.call_later(for_s, self.world.network.resume, process)

    def _drain(self, process: Process) -> None:
        """It wants to be rid of what it has; then it has enough of that."""
        if process.alive and hasattr(process, "board"):
            self.world.story.tell(process, "is draining")
            process.loop.call_soon(process.drain)
            for_s = self.dice.uniform(0.2, 2.0)
            self.world.timeline.call_later(for_s, self._drained, process)

    def _drained(self, process: Process) -> None:
        if self.dice.random() < 0.5:
            self.world.kill(process)
        else:
            process.recover()

    def _move_any(self) -> None:
        running = [client.spec.id for client in self.world.clients if not client.over]
        if running:
            self._move(self.dice.choice(running))

    def _move(self, request: str | None) -> None:
        door = self.world.door
        door.loop.call_soon(self._relocate, door, request)

    def _relocate(self, door: Process, request: str | None) -> None:
        try:
            to = door.reception.relocate(request)
        except MoveRefused as refused:
            self.world.story.tell("chaos", f"{request} does not move: {refused}")
        else:
            self.world.story.tell("chaos", f"{request} shall move to {to.worker}")
