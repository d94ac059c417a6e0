"""Who sends the requests of a trace: an open loop by the clock, sessions when they have their answers."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival, ClosedSession, ClosedTrace, Trace

Ended = Callable[[], None]
SendOff = Callable[[Arrival, Ended], None]
"""Sends a request now; `Ended` is called when it has ended, in whatever way."""


class Clients(Protocol):
    """All of a trace."""

    @property
    def done(self) -> bool:
        """They will send nothing more."""

    def start(self) -> None: ...


class OpenClients:
    """Nobody waits for anybody. Of the trace, one arrival is looked at in advance."""

    def __init__(self, timeline: Timeline, arrivals: Iterable[Arrival], send: SendOff) -> None:
        self._timeline, self._send = timeline, send
        self._arrivals: Iterator[Arrival] = iter(arrivals)
        self.done = False

    def start(self) -> None:
        arrival = next(self._arrivals, None)
        if arrival is None:
            self.done = True
        else:
            self._timeline.call_at(arrival.at_s, self._arrive, arrival)

    def _arrive(self, arrival: Arrival) -> None:
        self.start()
        self._send(arrival, _nothing)


class ClosedClients:
    """A turn is sent `think_s` after the end of the one before it, whether that was answered or refused. A sub-agent starts
    when its parent's turn has ended; one whose parent is not there starts at its recorded time."""

    def __init__(
        self, timeline: Timeline, sessions: Iterable[ClosedSession], send: SendOff
    ) -> None:
        self._timeline, self._sessions, self._send = timeline, sessions, send
        self._spawned: dict[tuple[str, int], list[ClosedSession]] = defaultdict(list)
        self._to_send = 0

    @property
    def done(self) -> bool:
        return not self._to_send

    def start(self) -> None:
        turns: dict[str, int] = {}
        for session in self._sessions:
            turns[session.id] = len(session.turns)
            self._to_send += len(session.turns)
            spawn = session.spawned
            if spawn is not None and spawn.turn < turns.get(spawn.session, 0):
                self._spawned[spawn.session, spawn.turn].append(session)
            else:
                self._timeline.call_at(session.starts_s, self._think, session, 0)

    def _think(self, session: ClosedSession, turn: int) -> None:
        if turn < len(session.turns):
            think_s = session.turns[turn].think_s
            self._timeline.call_later(think_s, self._arrive, session, turn)

    def _arrive(self, session: ClosedSession, number: int) -> None:
        turn, now_s = session.turns[number], self._timeline.now_s()
        self._to_send -= 1
        arrival = Arrival(
            now_s,
            turn.prompt_tokens,
            turn.output_tokens,
            turn.names,
            session.id,
            continued=_continued(session, number),
        )
        self._send(arrival, lambda: self._ended(session, number))

    def _ended(self, session: ClosedSession, number: int) -> None:
        for child in self._spawned.pop((session.id, number), ()):
            assert child.spawned is not None
            self._timeline.call_later(child.spawned.delay_s, self._think, child, 0)
        self._think(session, number + 1)


def clients_of(trace: Trace | ClosedTrace, timeline: Timeline, send: SendOff) -> Clients:
    if isinstance(trace, Trace):
        return OpenClients(timeline, trace.arrivals, send)
    return ClosedClients(timeline, trace.sessions, send)


def _continued(session: ClosedSession, number: int) -> tuple[int, ...]:
    """The next turn's names, if it goes on from this one: names stand for everything before them."""
    if number + 1 == len(session.turns):
        return ()
    names, following = session.turns[number].names, session.turns[number + 1].names
    return following if names and following[: len(names)][-1:] == names[-1:] else ()


def _nothing() -> None: ...
