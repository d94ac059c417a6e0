"""The front door at token level: requests of tokens in, pieces of tokens out, whatever happens behind.

Puts the parts together and owns them: admission, sessions, ledger, prefix index, routes, and the pilots of the requests in
flight. Knows no text, no HTTP and no Ray; it belongs to one event loop.
"""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import msgspec

from tercet.clock import Clock, MonotonicClock
from tercet.config import ClusterConfig
from tercet.errors import InvalidRequest, NoWorkers, RequestFailed
from tercet.ids import FrontDoorId, RequestId, new_request_id
from tercet.request import RequestSpec
from tercet.role import Role
from tercet.router.admission import Admission
from tercet.router.dispatch import Dispatch, Errand
from tercet.router.events import Joined, WorkerLost, WorkerWord
from tercet.router.flight import Flight
from tercet.router.generation import Generation
from tercet.router.history import History
from tercet.router.ledger import Ledger, Slot, life_of
from tercet.router.meter import Meter
from tercet.router.metrics import Metrics
from tercet.router.pilot import Pilot
from tercet.router.policies import POLICIES
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.record import Tally
from tercet.router.routes import Routes
from tercet.router.sessions import Sessions
from tercet.router.split import Split
from tercet.router.status import FrontDoorStatus, worker_seen
from tercet.router.views import view_of
from tercet.wire import Endpoint, Membership

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
        self._ledger = Ledger()
        self._index = PrefixIndex(config.router.prefix_index_blocks_max)
        self._sessions = Sessions(
            config.name, front_door, config.link, clock=self._clock, listener=self
        )
        self._dispatch = Dispatch(
            _routes(config), self._sessions, self._ledger, self._index, self._clock
        )
        door = config.front_door
        self._admission = Admission(
            places=door.in_flight_max,
            queue_max=door.queue_max,
            queue_wait_s_max=door.queue_wait_s_max,
            clock=self._clock,
        )
        self._pilots: dict[RequestId, Pilot] = {}
        """By the names that workers know; `_serving` are the callers' names of the same requests."""
        self._serving: set[RequestId] = set()
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
        for pilot in list(self._pilots.values()):
            pilot.fail(RequestFailed("the front door is stopping"))
        await self._sessions.stop()

    def update(self, membership: Membership) -> None:
        """From now on these workers may be used; ignored unless newer than what is known."""
        if membership.version <= self._membership.version:
            return
        self._membership = membership
        if self._open:
            self._sessions.update(membership)
            self._index.keep_only({life_of(endpoint) for endpoint in membership.workers})
            self._close_idle()

    def status(self) -> FrontDoorStatus:
        """A picture of now."""
        now_s = self._clock.now_s()
        return FrontDoorStatus(
            front_door=self.front_door,
            membership_version=self._membership.version,
            policy=self._config.router.policy,
            in_flight=self._admission.in_flight,
            queued=self._admission.queued,
            turned_away=self._admission.turned_away,
            known_blocks=len(self._index),
            workers=tuple(
                worker_seen(session, view_of(session, self._ledger, 0, now_s))
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
        deadline_s: float | None = None,
        session: str = "",
        tenant: str = "",
    ) -> AsyncIterator[Generation]:
        """Serve one request while the context lasts; leaving it cancels on every worker in the same turn of the loop.

        Entering waits for a place and a worker. Raises `Overloaded` when there is no place, or every worker refuses, for
        too long; `NoWorkers` when none can be asked for too long; `DeadlineExceeded` when `deadline_s`, counted from this
        call, is over. `session` names a conversation, for policies and records; `tenant` who asks, for records.
        """
        now_s = self._clock.now_s()
        tally = Tally(spec.id, len(spec.prompt), now_s, session, spec.priority, tenant)
        async with self._admission.place(spec.priority, deadline_s):
            with self._flight(spec, tally) as pilot:
                waited_s = self._clock.now_s() - tally.started_s
                pilot.start(None if deadline_s is None else deadline_s - waited_s)
                await pilot.dispatched()
                yield pilot.generation

    @contextmanager
    def _flight(self, spec: RequestSpec, tally: Tally) -> Iterator[Pilot]:
        """Nothing of the request is left here, nor wanted anywhere, when this context ends."""
        if not self._open:
            raise NoWorkers("the front door is closed", RETRY_AFTER_S)
        if spec.id in self._serving:
            raise InvalidRequest("request_id", f"{spec.id} is being served already")
        # Clients may choose an id, and use it again, or here and at another front door: to workers every request is new.
        spec = msgspec.structs.replace(spec, id=new_request_id(spec.id))
        with self._ledger.slot() as slot:
            pilot = self._pilots[spec.id] = self._pilot(spec, slot, tally)
            self._serving.add(tally.request)
            try:
                yield pilot
            finally:
                pilot.leave()
                del self._pilots[spec.id]
                self._serving.remove(tally.request)
                record = pilot.record()
                self.history.add(record)
                self.metrics.ended(record)
        self._close_idle()

    def _pilot(self, spec: RequestSpec, slot: Slot, tally: Tally) -> Pilot:
        config = self._config
        flight = Flight(
            spec,
            replays_max=config.router.replays_max,
            wait_s_max=config.front_door.queue_wait_s_max,
        )
        block_tokens = config.engine_of(Role.DECODE).block_tokens
        prefix = Prefix(spec.prompt, block_tokens, spec.hash_domain)
        errand = Errand(spec, prefix, slot, tally.session)
        return Pilot(flight, errand, self._dispatch, tally, self._clock)

    def _close_idle(self) -> None:
        self._sessions.close_idle(lambda worker: self._ledger.outstanding(worker) == 0)

    # ---- what the sessions tell --------------------------------------------------------------------------------------

    def heard(self, word: WorkerWord) -> None:
        """A worker said something about a request; words about requests that are over are dropped."""
        pilot = self._pilots.get(word.request)
        if pilot is not None:
            pilot.handle(word)

    def reported(self, worker: Endpoint) -> None:
        self._ledger.reconcile(worker, self._clock.now_s())

    def connected(self, worker: Endpoint) -> None:
        """Somebody may have been waiting for it."""
        for pilot in list(self._pilots.values()):
            pilot.handle(Joined())

    def lost(self, worker: Endpoint, reason: str) -> None:
        self._ledger.forget(worker)
        for pilot in list(self._pilots.values()):
            pilot.handle(WorkerLost(worker, reason))


def _routes(config: ClusterConfig) -> Routes:
    """The configured policy, once for each pool."""
    dice = random.Random()
    router = config.router
    options = POLICIES.options(router.policy, router.policy_options).aimed_at(config.slo)
    apart = config.pools.prefill.replicas > 0
    decode = options.build_decode(dice) if apart else options.build(dice)
    return Routes(options.build(dice), decode, Split(router.local_prefill_tokens_max))
