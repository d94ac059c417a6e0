"""A front door without sockets and without callers: who is in flight, who waits, what is known of the workers.

What workers say comes in, what they are told goes out through `Seating.post`, and whoever wants tokens gives a sink for them.
Time is a clock and timers that are handed in, so the same code runs on an event loop and in a simulation. Synchronous, and
owned by one of these two.
"""

import logging
from array import array
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from tercet.clock import Clock
from tercet.config import ClusterConfig
from tercet.errors import MoveRefused, TercetError
from tercet.ids import RequestId, WorkerId
from tercet.request import RequestSpec
from tercet.role import Role
from tercet.router.dispatch import Dispatch
from tercet.router.door import NEVER_S, Door, DoorRules, FairShare, Lines, Sent, Ticket, Verdict
from tercet.router.errand import Errand
from tercet.router.events import Joined, Unseated, WorkerLost, WorkerWord
from tercet.router.flight import Flight
from tercet.router.hearsay import Hearsay
from tercet.router.ledger import Ledger, Slot, life_of
from tercet.router.pilot import Pilot, Sink, Timer, Timers
from tercet.router.policies import POLICIES
from tercet.router.policy import Dice, Rank
from tercet.router.pool import Peer
from tercet.router.prefix_index import STEP_TOKENS, Prefix, PrefixIndex
from tercet.router.record import Tally
from tercet.router.routes import Routes
from tercet.router.sight import Seats, Sight
from tercet.router.split import Split
from tercet.wire import Adopt, Endpoint, Membership, Message, MoveWanted, Submit

logger = logging.getLogger(__name__)


class Seating(Seats, Protocol):
    """The workers that can be reached: a front door's sessions are one."""

    def __iter__(self) -> Iterator[Peer]: ...

    def post(self, worker: Endpoint, message: Message) -> None:
        """Send soon; if the worker is gone, its loss is or will be told."""

    def is_left(self, worker: Endpoint) -> bool:
        """Whether this life of the worker is to have no requests any more, though it still works."""


class Reception:
    """Raises ConfigError for a policy, or options of one, that there are not."""

    def __init__(
        self,
        config: ClusterConfig,
        seating: Seating,
        clock: Clock,
        timers: Timers,
        dice: Dice,
        index: PrefixIndex | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = Ledger() if ledger is None else ledger
        names_max = config.router.prefix_index_blocks_max
        block_tokens = config.engine_of(Role.DECODE).block_tokens
        step = max(1, STEP_TOKENS // block_tokens)
        self.index = PrefixIndex(names_max, step) if index is None else index
        self.hearsay = Hearsay(names_max, block_tokens)
        self._config, self._seating, self._clock, self._timers = config, seating, clock, timers
        self._block_tokens = block_tokens
        lines, self._fair = Lines(), FairShare(config.front_door.limits.weight)
        sight = Sight(seating, self.ledger, self.index, self.hearsay, lines)
        self._dispatch = Dispatch(routes_of(config, dice), sight, self.ledger, lambda: seating)
        self.door = Door(self._dispatch, lines, rules_of(config), self._fair, dice)
        self._pilots: dict[RequestId, Pilot] = {}
        self._waking: Timer | None = None
        self._wakes_at_s = NEVER_S

    @property
    def pilots(self) -> Mapping[RequestId, Pilot]:
        """The requests that are here, by the names that workers know."""
        return self._pilots

    # ---- requests ----------------------------------------------------------------------------------------------------

    def admit(
        self,
        spec: RequestSpec,
        slot: Slot,
        tally: Tally,
        sink: Sink,
        deadline_s: float | None,
        numbers: "array[int] | None" = None,
    ) -> Pilot:
        """Take a request in; `deadline_s` is how long its answer is of any use. It leaves by `release`.

        `numbers` is the prompt, for who has it as `numbers_of` makes it.
        """
        errand = Errand(spec, self.prefix(spec, numbers), slot, tally.session)
        ticket = self._ticket(errand, tally, deadline_s)
        router, door = self._config.router, self._config.front_door
        flight = Flight(spec, replays_max=router.replays_max, wait_s_max=door.queue_wait_s_max)
        pilot = Pilot(flight, ticket, self, tally, sink, self._clock, self._timers)
        self._pilots[spec.id] = pilot
        pilot.start(deadline_s)
        return pilot

    def release(self, pilot: Pilot) -> None:
        """Its caller has left: cancel what still runs, forget it."""
        pilot.leave()
        del self._pilots[pilot.ticket.id]

    def fail_all(self, error: TercetError) -> None:
        """End every request; those who wait first, or they would be sent to workers in the place of those who are ended."""
        for pilot in sorted(self._pilots.values(), key=lambda one: not self.door.holds(one.ticket)):
            pilot.fail(error)

    def relocate(self, request: RequestId, to: WorkerId | None = None) -> Endpoint:
        """Have a running request taken over by another worker, `to` or one of the policy's; returns which.

        Raises `MoveRefused`, with nothing changed.
        """
        pilot = self._pilots.get(request)
        if pilot is None:
            raise MoveRefused("no such request runs here", known=False)
        return pilot.relocate(to)

    def prefix(self, spec: RequestSpec, numbers: "array[int] | None" = None) -> Prefix:
        """The names of the prompt's prefixes; a trace has them without tokens."""
        prompt = spec.prompt if numbers is None else numbers
        return Prefix(prompt, self._block_tokens, spec.hash_domain)

    def _ticket(self, errand: Errand, tally: Tally, deadline_s: float | None) -> Ticket:
        slo, now_s = self._config.slo, self._clock.now_s()
        spec = errand.spec
        due_s = now_s + slo.ttft_ms / 1e3
        useless_s = NEVER_S if deadline_s is None else now_s + deadline_s
        tag = self._fair.tag(tally.tenant, len(spec.prompt))
        return Ticket(
            errand=errand,
            rank=Rank(spec.priority, tally.tenant, tag, min(due_s, useless_s)),
            entered_s=now_s,
            give_up_s=now_s + self._config.front_door.queue_wait_s_max,
            deadline_s=min(due_s, useless_s) if slo.enforced else useless_s,
        )

    # ---- what pilots ask for (`pilot.Desk`) --------------------------------------------------------------------------

    @property
    def dispatch(self) -> Dispatch:
        return self._dispatch

    def post(self, worker: Endpoint, message: Message) -> None:
        if isinstance(message, Submit | Adopt) and self._has_others(worker):
            prefix = self._pilots[message.spec.id].ticket.errand.prefix
            message = msgspec.structs.replace(message, names=self.hearsay.told(prefix.names))
        self._seating.post(worker, message)

    def queue(self, ticket: Ticket) -> None:
        self._carry_out(self.door.enter(ticket, self._clock.now_s()))

    def unqueue(self, ticket: Ticket) -> None:
        self._carry_out(self.door.done(ticket, self._clock.now_s()))

    def busy(self, worker: Endpoint, retry_after_s: float) -> None:
        self.door.refused(worker.worker, retry_after_s, self._clock.now_s())
        self._arm()

    def moved(self, source: Endpoint) -> None:
        """A live move has succeeded: the next one may begin. After one that did not, the worker's next report is the occasion,
        or a destination that is full would be asked without end."""
        if self._seating.is_left(source):
            self._timers.call_later(0.0, self._evacuate, source)

    def prefilled(self, worker: Endpoint) -> None:
        self._carry_out(self.door.first_token(worker.worker, self._clock.now_s()))

    def generated(self, ticket: Ticket, tokens: int) -> None:
        if ticket.first_s is None:
            ticket.first_s = self._clock.now_s()
        self._fair.generated(ticket.rank.tenant, tokens)

    # ---- what workers say --------------------------------------------------------------------------------------------

    def heard(self, word: WorkerWord) -> None:
        """A worker said something about a request; words about requests that are over are dropped."""
        pilot = self._pilots.get(word.request)
        if pilot is not None:
            pilot.handle(word)

    def reported(self, worker: Endpoint) -> None:
        """Its peer has a new report."""
        now_s = self._clock.now_s()
        self.ledger.reconcile(worker, now_s)
        if self.door.queued:
            self._carry_out(self.door.news(worker.worker, now_s))
        if self._seating.is_left(worker):
            self._evacuate(worker)

    def learned(self, worker: Endpoint, names: bytes) -> None:
        """Other front doors sent it prompts with these prefixes."""
        self.hearsay.learn(life_of(worker), names)

    def wanted(self, worker: Endpoint, wish: MoveWanted) -> None:
        """A worker that is too full asks for one of its requests to be moved. Should that not be possible now, it asks again."""
        pilot = self._pilots.get(wish.request)
        if pilot is not None and pilot.custody.is_owned_by(worker, wish.epoch):
            try:
                pilot.relocate(wish.to)
            except MoveRefused as exc:
                logger.debug("%s stays at %s: %s", wish.request, worker.worker, exc)

    def connected(self, worker: Endpoint) -> None:
        """Somebody may have been waiting for it."""
        self._carry_out(self.door.joined(worker.worker, self._clock.now_s()))
        for pilot in list(self._pilots.values()):
            pilot.handle(Joined())

    def lost(self, worker: Endpoint, reason: str) -> None:
        """Everything this life of the worker had of ours is gone."""
        self.ledger.forget(worker)
        for pilot in list(self._pilots.values()):
            pilot.handle(WorkerLost(worker, reason))
        self._carry_out(self.door.lost(worker.worker, self._clock.now_s()))

    def members(self, membership: Membership) -> None:
        """These are the workers now; what others had cached is of no use."""
        lives = {life_of(endpoint) for endpoint in membership.workers}
        self.index.keep_only(lives)
        self.hearsay.keep_only(lives)

    def _evacuate(self, worker: Endpoint) -> None:
        """Nobody is to be left on that worker: who waits in its queue begins elsewhere, who runs moves, a few at a time."""
        pilots = list(self._pilots.values())
        places = EVACUATING_MAX - sum(pilot.custody.leaving == worker for pilot in pilots)
        for pilot in pilots:
            if pilot.custody.queued_at == worker:
                pilot.handle(Unseated())
            elif places > 0 and pilot.custody.owner == worker:
                try:
                    pilot.relocate()
                except MoveRefused:
                    return  # nobody takes anything now; its next report is the next occasion
                places -= 1

    def _has_others(self, worker: Endpoint) -> bool:
        """Whether other front doors would hear of what that worker is told."""
        peer = self._seating.roster(worker.role).sessions.get(worker.worker)
        report = None if peer is None else peer.report
        return report is not None and report.front_doors > 1

    # ---- the door's verdicts -----------------------------------------------------------------------------------------

    def _carry_out(self, verdicts: list[Verdict]) -> None:
        for verdict in verdicts:
            pilot = self._pilots.get(verdict.ticket.id)
            assert pilot is not None, f"{verdict.ticket.id} is nobody's"
            if isinstance(verdict, Sent):
                pilot.sent(verdict.route)
            else:
                pilot.turned_away(verdict.error)
        self._arm()

    def _arm(self) -> None:
        wake_at_s = self.door.wake_at_s
        if wake_at_s == self._wakes_at_s:
            return
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        self._wakes_at_s = wake_at_s
        if wake_at_s != NEVER_S:
            delay_s = max(0.0, wake_at_s - self._clock.now_s())
            self._waking = self._timers.call_later(delay_s, self._wake)

    def _wake(self) -> None:
        self._waking, self._wakes_at_s = None, NEVER_S
        self._carry_out(self.door.wake(self._clock.now_s()))


def rules_of(config: ClusterConfig) -> DoorRules:
    """What the cluster file says about waiting."""
    door, within_s = config.front_door, min(config.engine_of(role).start_within_s for role in Role)
    slo = config.slo
    return DoorRules(
        places=door.in_flight_max,
        queue_max=door.queue_max,
        ahead_s=within_s * AHEAD_SHARE,
        itl_s_max=slo.itl_ms / 1e3 if slo.enforced else NEVER_S,
    )


def routes_of(config: ClusterConfig, dice: Dice) -> Routes:
    """The configured policy, once for each pool."""
    router = config.router
    options = POLICIES.options(router.policy, router.policy_options).aimed_at(config.slo)
    apart = config.pools.prefill.replicas > 0
    decode = options.build_decode(dice) if apart else options.build(dice)
    return Routes(options.build(dice), decode, Split(router.local_prefill_tokens_max))


EVACUATING_MAX = 4
"""Requests that leave a worker at the same time: more would copy no faster, and each one that is frozen waits for the others."""
AHEAD_SHARE = 0.7
"""A worker refuses what it cannot start within `start_within_s`. It is sent more while it has clearly less to do, so that a
refusal is rare: it takes several front doors at once."""
