"""What may go wrong in a schedule, and how much of it."""

from dataclasses import dataclass, field
from enum import StrEnum

from faults.process import Process

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
    "Took",
    "MoveWanted",
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


CALLS = [
    *("start", "drain", "stop", "kill", "kill", "figures", "found", "remember", "remembered"),
    *("endpoint", "when_placed"),
]
"""The controller's calls at which it may die: see `faults.fleet`."""


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
    """Springs when a message of this kind is sent, or such a call made, for the `countdown`-th time."""

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
    CONTROL = "control"
    """Controllers die, come back, are told to drain and to scale, and hear late of whatever they watch."""
    DOORS = "doors"
    """Two front doors move what they have; one dies, and there is no fault besides: the other one's clients notice nothing."""
    PACKED = "packed"
    """KV travels packed."""
    PRESSURE = "pressure"
    """Many requests, few blocks: what is given up is soon used again."""
    SLOW = "slow"
    """A network so slow that leases must be renewed, and no fault besides."""


SHARES = (77, 8, 3, 3, 7, 2)
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
    scales: int = 0
    packed: bool = False
    """KV travels packed, in staging memory that is soon full."""
    relief: bool = False
    """The planner looks who is full, often."""
    reliefs: float = 0.0
    """How likely a worker is told to give something away when it has sent tokens."""
    doors: int = 1
    door_kills: int = 0
    controller_kills: int = 0
    bad_starts: float = 0.0
    late_calls: float = 0.0
    """Of controllers' calls, there or back."""
    lost_polls: float = 0.0
    behind: float = 0.0
    """How likely a controller comes back where the wall clock is behind."""
    traps: dict[str, list[Trap]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        """Whether several requests decode on one worker, which fills up while they do."""
        return self.relief or self.theme is Theme.PACKED
