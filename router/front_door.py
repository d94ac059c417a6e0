"""The front door at token level: requests of tokens in, pieces of tokens out, whatever happens behind.

The edge of the reception: sessions bring what workers say, callers wait for their generations. Knows no text, no HTTP and no
Ray; it belongs to one event loop.
"""

import asyncio
import random
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVarTuple

import msgspec

from tercet.clock import Clock, MonotonicClock
from tercet.config import ClusterConfig
from tercet.errors import InvalidRequest, MoveRefused, NoWorkers, RequestFailed
from tercet.ids import FrontDoorId, RequestId, WorkerId, new_request_id
from tercet.request import RequestSpec
from tercet.router.events import WorkerWord
from tercet.router.generation import Generation
from tercet.router.history import History
from tercet.router.meter import Meter
from tercet.router.metrics import Metrics
from tercet.router.reception import Reception
from tercet.router.record import Tally
from tercet.router.sessions import Sessions
from tercet.router.status import FrontDoorStatus, worker_seen
from tercet.router.views import view_of
from tercet.wire import Endpoint, Membership, MoveWanted

Ts = TypeVarTuple("Ts")

RETRY_AFTER_S = 1.0
"""What clients of a front door that is stopping are told; another replica may serve them."""


class FrontDoor:
    """One replica of the front door. Raises ConfigError for a policy, or options of one, that there are not."""

    def __init__(
        self, config: ClusterConfig, front_door: FrontDoorId, *, clock: Clock | None = None
    ) -> None:
        self.front_door = front_door
        self.history = History()
        self.metrics = Metrics(self.status)
        self._config, self._clock = config, clock or MonotonicClock()
        self.meter = Meter(
            config.front_door.limits, config.model.name, self._clock, self.metrics.rate_limited
        )
        self._sessions = Sessions(
            config.name, front_door, config.link, clock=self._clock, listener=self
        )
        self._reception = Reception(
            config, self._sessions, self._clock, LoopTimers(), random.Random()
        )
        self._serving: dict[RequestId, RequestId] = {}
        """The requests that are here: the names that workers know, by their callers' names."""
        self._membership = Membership(version=-1)
        self._open = False

    # ---- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the sessions with the members known so far, and let requests in."""
        self._open = True
        self._sessions.update(self._membership)

    async def stop(self) -> None:
        """Fail what is still in flight, tell its workers, close every session. Idempotent."""
        self._open = False
        self._reception.fail_all(RequestFailed("the front door is stopping"))
        await self._sessions.stop()

    def update(self, membership: Membership) -> None:
        """From now on these workers may be used; ignored unless newer than what is known."""
        if membership.version <= self._membership.version:
            return
        self._membership = membership
        if self._open:
            self._sessions.update(membership)
            self._reception.members(membership)
            self._close_idle()

    def status(self) -> FrontDoorStatus:
        """A picture of now."""
        now_s = self._clock.now_s()
        return FrontDoorStatus(
            front_door=self.front_door,
            membership_version=self._membership.version,
            policy=self._config.router.policy,
            in_flight=self._reception.door.in_flight,
            queued=self._reception.door.queued,
            turned_away=self._reception.door.turned_away,
            known_blocks=len(self._reception.index),
            known_names=len(self._reception.hearsay),
            workers=tuple(
                worker_seen(session, view_of(session, self._reception.ledger, 0, now_s))
                for session in self._sessions
            ),
            ttft_accuracy=self.history.accuracy(),
        )

    # ---- requests ----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def generate(
        self,
        spec: RequestSpec,
        *,
        numbers: "array[int] | None" = None,
        deadline_s: float | None = None,
        session: str = "",
        tenant: str = "",
    ) -> AsyncIterator[Generation]:
        """Serve one request while the context lasts; leaving it cancels on every worker in the same turn of the loop.

        Entering waits for a place and a worker. Raises `Overloaded` when there is no place, or every worker refuses, for
        too long; `NoWorkers` when none can be asked for too long; `DeadlineExceeded` when `deadline_s`, counted from this
        call, is over. `session` names a conversation, for policies and records; `tenant` who asks, for records. `numbers` is
        the prompt as `numbers_of` makes it, for who has it.
        """
        now_s = self._clock.now_s()
        tally = Tally(spec.id, len(spec.prompt), now_s, session, spec.priority, tenant)
        with self._stay(spec, tally, deadline_s, numbers) as generation:
            await generation.dispatched()
            yield generation

    def relocate(self, request: RequestId, to: WorkerId | None = None) -> WorkerId:
        """Have a request that runs taken over by another worker, `to` or one of the policy's; returns which.

        Its record tells how that ends. Raises `MoveRefused`, with nothing changed.
        """
        known = self._serving.get(request)
        if known is None:
            raise MoveRefused("no such request runs here", known=False)
        return self._reception.relocate(known, to).worker

    @contextmanager
    def _stay(
        self,
        spec: RequestSpec,
        tally: Tally,
        deadline_s: float | None,
        numbers: "array[int] | None",
    ) -> Iterator[Generation]:
        """Nothing of the request is left here, nor wanted anywhere, when this context ends."""
        if not self._open:
            raise NoWorkers("the front door is closed", RETRY_AFTER_S)
        if spec.id in self._serving:
            raise InvalidRequest("request_id", f"{spec.id} is being served already")
        # Clients may choose an id, and use it again, or here and at another front door: to workers every request is new.
        spec = msgspec.structs.replace(spec, id=new_request_id(spec.id))
        reception = self._reception
        with reception.ledger.slot() as slot:
            generation = Generation(lambda: pilot.record())
            pilot = reception.admit(spec, slot, tally, generation, deadline_s, numbers)
            self._serving[tally.request] = spec.id
            try:
                yield generation
            finally:
                reception.release(pilot)
                del self._serving[tally.request]
                record = pilot.record()
                self.history.add(record)
                self.metrics.ended(record)
        self._close_idle()

    def _close_idle(self) -> None:
        ledger = self._reception.ledger
        self._sessions.close_idle(lambda worker: ledger.outstanding(worker) == 0)

    # ---- what the sessions tell --------------------------------------------------------------------------------------

    def heard(self, word: WorkerWord) -> None:
        self._reception.heard(word)

    def reported(self, worker: Endpoint) -> None:
        self._reception.reported(worker)

    def learned(self, worker: Endpoint, names: bytes) -> None:
        self._reception.learned(worker, names)

    def wanted(self, worker: Endpoint, wish: MoveWanted) -> None:
        self._reception.wanted(worker, wish)

    def connected(self, worker: Endpoint) -> None:
        self._reception.connected(worker)

    def lost(self, worker: Endpoint, reason: str) -> None:
        self._reception.lost(worker, reason)


class LoopTimers:
    """Those of the running event loop."""

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], /, *args: *Ts
    ) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay, callback, *args)
