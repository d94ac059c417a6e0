"""The sessions with all workers of the membership, and the tasks that run them."""

import asyncio
import logging
from collections.abc import Callable, Iterator

from tercet.clock import Clock
from tercet.config import LinkConfig
from tercet.ids import FrontDoorId, WorkerId, new_incarnation
from tercet.link import host_id
from tercet.role import Role
from tercet.router.ledger import Life, life_of
from tercet.router.pool import Peer, Roster
from tercet.router.session import Listener, Session
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, Membership, Message

logger = logging.getLogger(__name__)

NOBODY = Roster()


class Sessions:
    """One session for each life of a worker. Belongs to one event loop; `stop` ends every task it started."""

    def __init__(
        self,
        cluster: str,
        front_door: FrontDoorId,
        config: LinkConfig,
        *,
        clock: Clock,
        listener: Listener,
    ) -> None:
        self._cluster, self._front_door, self._config = cluster, front_door, config
        self._clock, self._listener = clock, listener
        self._incarnation, self._host_id = new_incarnation(), host_id()
        self._sessions: dict[Life, Session] = {}
        self._rosters: dict[Role, Roster] = {}
        self._tasks: dict[Life, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def roster(self, role: Role) -> Roster:
        """The pool by the last membership; the same object until the next one that changes it."""
        return self._rosters.get(role, NOBODY)

    def post(self, worker: Endpoint, message: Message) -> None:
        """Send soon; nothing happens when this life of the worker is gone, as the listener knows."""
        session = self._sessions.get(life_of(worker))
        if session is not None:
            session.post(message)

    def is_left(self, worker: Endpoint) -> bool:
        """It is out of the membership, or leaves by itself, and its link stands."""
        session = self._sessions.get(life_of(worker))
        return session is not None and session.connected and not session.usable

    def update(self, membership: Membership) -> None:
        """Open sessions with new workers; retire those that no longer belong."""
        members = {life_of(endpoint): endpoint for endpoint in membership.workers}
        for life, session in self._sessions.items():
            if life in members:
                session.endpoint = members[life]
            session.retired = life not in members
        for life, endpoint in members.items():
            # One whose link was lost while it was retired has ended, but may not have been closed yet.
            if life not in self._sessions or self._tasks[life].done():
                self._open(life, endpoint)
        for role in Role:
            self._enrol(role)

    def close_idle(self, is_idle: Callable[[Endpoint], bool]) -> None:
        """End retired sessions without link or work; a worker that is being drained keeps its link until then."""
        for life, session in list(self._sessions.items()):
            if session.retired and (not session.connected or is_idle(session.endpoint)):
                self._close(life)

    async def stop(self) -> None:
        """End every session and wait for it."""
        for life in list(self._sessions):
            self._close(life)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _enrol(self, role: Role) -> None:
        seats: dict[WorkerId, Peer] = {
            session.endpoint.worker: session
            for session in self._sessions.values()
            if session.endpoint.role is role and not session.retired
        }
        last = self.roster(role)
        members = last.members if seats.keys() == last.members else frozenset(seats)
        self._rosters[role] = Roster(seats, members)

    def _open(self, life: Life, endpoint: Endpoint) -> None:
        hello = Hello(
            protocol=PROTOCOL_VERSION,
            cluster=self._cluster,
            sender=self._front_door,
            incarnation=self._incarnation,
            expects=endpoint.incarnation,
            learns=True,
        )
        session = Session(
            endpoint,
            hello,
            config=self._config,
            host_id=self._host_id,
            clock=self._clock,
            listener=self._listener,
        )
        task = asyncio.get_running_loop().create_task(session.run(), name=f"session {life}")
        task.add_done_callback(self._ended)
        self._sessions[life], self._tasks[life] = session, task

    def _close(self, life: Life) -> None:
        del self._sessions[life]
        task = self._tasks.pop(life)
        if not task.done():
            self._ending.add(task)
            task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a session failed", exc_info=error)
