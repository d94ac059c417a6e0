"""Pools of workers as policies see them: the live one of a front door, and a plain list."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tercet.ids import WorkerId
from tercet.router.policy import WorkerView
from tercet.wire import Endpoint, LoadReport


class Peer(Protocol):
    """One life of one worker, as far as a front door hears of it. A session is one."""

    endpoint: Endpoint
    report: LoadReport | None
    retired: bool

    @property
    def connected(self) -> bool: ...
    @property
    def usable(self) -> bool:
        """It may be sent new work."""

    def report_age_s(self, now_s: float) -> float: ...
    def suspect(self, now_s: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Roster:
    """The seats of one pool and who sits there; replaced whole when the membership changes."""

    sessions: dict[WorkerId, Peer] = field(default_factory=dict)
    members: frozenset[WorkerId] = frozenset()


class Glance(Protocol):
    """Workers as one request sees them."""

    def one(self, peer: Peer) -> WorkerView: ...
    def everybody(self, peers: Iterator[Peer]) -> Iterator[WorkerView]: ...
    def holders(self, beyond_tokens: float) -> Iterable[WorkerId]:
        """Of all pools, who has most of the request cached first; nobody after the last who has more than so much."""


class LivePool:
    """One pool of the front door, for one request."""

    __slots__ = ("_exclude", "_glance", "_roster")

    def __init__(self, roster: Roster, exclude: frozenset[WorkerId], glance: Glance) -> None:
        self._roster, self._exclude, self._glance = roster, exclude, glance

    @property
    def members(self) -> frozenset[WorkerId]:
        return self._roster.members

    def find(self, worker: WorkerId) -> WorkerView | None:
        session = self._roster.sessions.get(worker)
        if session is None or worker in self._exclude or not session.usable:
            return None
        return self._glance.one(session)

    def nearest(self, beyond_tokens: float = 0) -> Iterator[WorkerView]:
        for worker in self._glance.holders(beyond_tokens):
            view = self.find(worker)
            if view is not None:
                if view.hit_tokens <= beyond_tokens:
                    return
                yield view

    def __iter__(self) -> Iterator[WorkerView]:
        return self._glance.everybody(filter(self._may_ask, self._roster.sessions.values()))

    def _may_ask(self, session: Peer) -> bool:
        return session.usable and session.endpoint.worker not in self._exclude


class ListedPool:
    """A pool of given views."""

    def __init__(self, views: Sequence[WorkerView]) -> None:
        self._views = {view.worker: view for view in views}
        self.members = frozenset(self._views)

    def find(self, worker: WorkerId) -> WorkerView | None:
        return self._views.get(worker)

    def nearest(self, beyond_tokens: float = 0) -> Iterator[WorkerView]:
        holders = [view for view in self if view.hit_tokens > beyond_tokens]
        return iter(sorted(holders, key=lambda view: -view.hit_tokens))

    def __iter__(self) -> Iterator[WorkerView]:
        return iter(self._views.values())
