"""What every side of a comparison is told, and what it says of itself. A side stands between the client and its own workers."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from timing import Timing


class Unavailable(Exception):
    """This side cannot be measured here; says why."""


@dataclass(frozen=True, slots=True)
class Variant:
    """What is measured: `system:policy[,option=value…]`."""

    system: str
    policy: str
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Raises ValueError for what has another form."""
        system, _, rest = text.partition(":")
        policy, *options = rest.split(",")
        if not (system and policy and all("=" in option for option in options)):
            raise ValueError(f"{text!r} is not system:policy[,option=value]")
        return cls(system, policy, dict(option.split("=", 1) for option in options))

    def __str__(self) -> str:
        options = (f"{name}={value}" for name, value in self.options.items())
        return f"{self.system}:" + ",".join((self.policy, *options))


@dataclass(frozen=True, slots=True)
class Stage:
    """What is the same for every side."""

    timing: Timing
    workers: int
    blocks: int
    """Different blocks in the prompts to come."""
    records_max: int
    """Requests to come, at most."""
    peers: Path | None
    """Folder of the peers' virtual environments."""
    stretch: float
    """Workers and arrivals are in slow motion by this factor."""
    settings: Mapping[str, str]
    """`section.key` of our cluster file."""


class Facts(NamedTuple):
    """What a side itself says after a run."""

    per_worker: list[int]
    """Requests each worker got."""
    more: Mapping[str, object] = {}


class Running(NamedTuple):
    """A side that can be sent requests."""

    url: str
    facts: Callable[[], Awaitable[Facts]]
