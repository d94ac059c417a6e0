"""What a trace says: which requests arrive when, how long they are, and which of them begin alike.

Contents are unknown, so a prompt is its length and the names of its full blocks: two prompts share a prefix up to a block's
end exactly when their names there are equal. Whatever a block leaves over at a prompt's end has no name and is shared with
nobody, as in the workers' caches.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of an open loop: it arrives at its time, whatever became of the others."""

    at_s: float
    """Since the trace's start."""
    prompt_tokens: int
    output_tokens: int
    """At least 1."""
    names: tuple[int, ...]
    """64 bits for each full block of the prompt; a name stands for everything up to its block's end."""
    session: str = ""
    tenant: str = ""
    priority: int = 0
    continued: tuple[int, ...] = ()
    """The names of a later prompt that begins with this one and its answer, where it is known: the next turn's."""

    def __post_init__(self) -> None:
        assert self.prompt_tokens > 0 < self.output_tokens, f"not a request: {self}"


@dataclass(frozen=True, slots=True)
class Trace:
    """An open loop: arrivals in the order of their times."""

    name: str
    block_tokens: int
    arrivals: Sequence[Arrival]
    remarks: Counter[str] = field(default_factory=Counter)
    """What was left out or is not known, by reason; complete once the arrivals have been walked through."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request of a session. It is sent `think_s` after the end of the turn before it, or after the session's start."""

    think_s: float
    prompt_tokens: int
    output_tokens: int
    names: tuple[int, ...]

    def __post_init__(self) -> None:
        assert self.prompt_tokens > 0 < self.output_tokens, f"not a request: {self}"


@dataclass(frozen=True, slots=True)
class Spawn:
    """Who starts a sub-agent: a turn of another session, `delay_s` after its end."""

    session: str
    turn: int
    delay_s: float


@dataclass(frozen=True, slots=True)
class ClosedSession:
    """Turns one after the other."""

    id: str
    starts_s: float
    """Since the trace's start, as recorded; a replay that lets parents start their sub-agents goes by `spawned` instead."""
    turns: tuple[Turn, ...]
    spawned: Spawn | None = None


@dataclass(frozen=True, slots=True)
class ClosedTrace:
    """A closed loop: sessions in which every request waits for the answer to the one before. Parents precede sub-agents."""

    name: str
    block_tokens: int
    sessions: Sequence[ClosedSession]
