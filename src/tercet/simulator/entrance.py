"""A simulated front door: the real reception, and in place of sockets messages that arrive later on the timeline."""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from msgspec import structs

from tercet.config import ClusterConfig
from tercet.errors import TercetError
from tercet.ids import FrontDoorId, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, Sampling, TokenLogprobs
from tercet.role import Role
from tercet.router.events import WorkerWord
from tercet.router.ledger import Ledger
from tercet.router.policy import Dice
from tercet.router.pool import Peer, Roster
from tercet.router.prefix_index import Prefix, PrefixIndex
from tercet.router.prefix_names import PrefixName
from tercet.router.reception import Reception
from tercet.router.record import RequestRecord, Tally
from tercet.router.session import SUSPECT_REPORTS
from tercet.simulator.blank import Blank
from tercet.simulator.machine import Book, Machine
from tercet.simulator.timeline import Timeline
from tercet.simulator.traces import Arrival
from tercet.wire import (
    Adopt,
    Cancel,
    Endpoint,
    LoadReport,
    Membership,
    Message,
    Refused,
    Resume,
    Submit,
)

Over = Callable[[Arrival, RequestRecord], None]
"""Told when a request has ended and nothing of it is left at its front door."""


@dataclass(eq=False, slots=True)
class Acquaintance:
    """What a front door has heard of one machine; its `Peer`."""

    endpoint: Endpoint
    suspect_s: float
    report: LoadReport | None = None
    heard_s: float = 0.0
    retired: bool = False
    connected: bool = True

    @property
    def usable(self) -> bool:
        return self.connected and not self.retired

    def report_age_s(self, now_s: float) -> float:
        return now_s - self.heard_s

    def suspect(self, now_s: float) -> bool:
        return now_s - self.heard_s > self.suspect_s


class NamedPrefix(Prefix):
    """A prompt whose names are known and whose tokens are not. What is generated after it is shared with its next turn, if
    that is known, else with nobody."""

    def __init__(self, arrival: Arrival, block_tokens: int) -> None:
        self.block_tokens, self._arrival = block_tokens, arrival
        self.names = cast("tuple[PrefixName, ...]", arrival.names)

    def extended(self, output: Sequence[int]) -> Sequence[PrefixName]:
        arrival = self._arrival
        blocks = (arrival.prompt_tokens + len(output)) // self.block_tokens
        rest = arrival.continued[len(arrival.names) : blocks]
        return cast("tuple[PrefixName, ...]", arrival.names + rest)


class TracedReception(Reception):
    """Takes the names of prefixes from the trace."""

    book: Book

    def prefix(self, spec: RequestSpec, numbers: "array[int] | None" = None) -> Prefix:
        return NamedPrefix(self.book[spec.id], self._block_tokens)


class Visit:
    """One request of a client at a front door: the sink of its tokens, and what comes of it."""

    is_satisfied = False

    def __init__(self, entrance: "Entrance", arrival: Arrival, over: Over) -> None:
        self._entrance, self._arrival, self._over = entrance, arrival, over
        self._ended = False

    def begun(self) -> None: ...
    def deliver(self, tokens: list[int], logprobs: list[TokenLogprobs] | None) -> None: ...
    def finish(self, reason: FinishReason) -> None: ...
    def fail(self, error: TercetError) -> None: ...

    def end(self) -> None:
        if not self._ended:
            self._ended = True
            self._entrance.timeline.call_later(0.0, self._leave)

    def enter(self, request: RequestId) -> None:
        """The request has arrived."""
        arrival, reception, timeline = (
            self._arrival,
            self._entrance.reception,
            self._entrance.timeline,
        )
        sampling = Sampling(max_tokens=arrival.output_tokens, ignore_eos=True)
        spec = RequestSpec(request, Blank(arrival.prompt_tokens), sampling, arrival.priority)
        now_s = timeline.now_s()
        self._slot = reception.ledger.slot()
        tally = Tally(
            request,
            arrival.prompt_tokens,
            now_s,
            arrival.session,
            arrival.priority,
            arrival.tenant,
            explained=False,
        )
        self._pilot = reception.admit(spec, self._slot, tally, self, None)

    def _leave(self) -> None:
        pilot = self._pilot
        del self._pilot  # it knows us, and neither is to be left to the garbage collector
        with self._slot:
            self._entrance.reception.release(pilot)
        self._over(self._arrival, pilot.record())


class Entrance:
    """One front door. A message takes `network_s` either way; `heard` and `reported` are told when it has arrived.

    A worker is suspect when nothing was reported for `suspect_s`; without it, as in production.
    """

    def __init__(
        self,
        name: FrontDoorId,
        config: ClusterConfig,
        timeline: Timeline,
        machines: Mapping[WorkerId, Machine],
        book: Book,
        dice: Dice,
        *,
        index: PrefixIndex | None = None,
        ledger: Ledger | None = None,
        network_s: float = 0.0,
        suspect_s: float | None = None,
    ) -> None:
        self.name, self.timeline = name, timeline
        self._machines, self._network_s = machines, network_s
        if suspect_s is None:
            period_s = config.link.report_period_s
            suspect_s = max(config.link.heartbeat_s, SUSPECT_REPORTS * period_s)
        self._known = {
            worker: Acquaintance(machine.endpoint, suspect_s)
            for worker, machine in machines.items()
        }
        self._rosters = {role: self._roster_of(role) for role in Role}
        self.reception = TracedReception(config, self, timeline, timeline, dice, index, ledger)
        self.reception.book = book

    # ---- the seating of the reception --------------------------------------------------------------------------------

    def roster(self, role: Role) -> Roster:
        return self._rosters[role]

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._known.values())

    def post(self, worker: Endpoint, message: Message) -> None:
        assert isinstance(message, Submit | Adopt | Resume | Cancel), message
        machine = self._machines[worker.worker]
        if machine.endpoint == worker:
            self.timeline.call_later(self._network_s, machine.take, self.name, message)

    def is_left(self, worker: Endpoint) -> bool:
        known = self._known[worker.worker]
        return known.endpoint == worker and known.connected and not known.usable

    # ---- what arrives ------------------------------------------------------------------------------------------------

    def visit(self, arrival: Arrival, request: RequestId, over: Over) -> None:
        Visit(self, arrival, over).enter(request)

    def heard(self, worker: WorkerId, word: WorkerWord) -> None:
        corrected = isinstance(word, Refused) and self._correct(worker, word)
        self.reception.heard(word)
        if corrected:
            self.reception.reported(self._known[worker].endpoint)

    def reported(self, worker: WorkerId, report: LoadReport) -> None:
        known = self._known[worker]
        known.report, known.heard_s = report, self.timeline.now_s()
        self.reception.reported(known.endpoint)

    def learned(self, worker: Endpoint, names: bytes) -> None:
        self.reception.learned(worker, names)

    def lost(self, worker: WorkerId) -> None:
        """Its process is gone, as its closed sockets say at once."""
        known = self._known[worker]
        known.connected = False
        self.reception.lost(known.endpoint, "closed")

    def joined(self, endpoint: Endpoint) -> None:
        """A worker lives again: the same seat, another life."""
        suspect_s = self._known[endpoint.worker].suspect_s
        known = Acquaintance(endpoint, suspect_s, heard_s=self.timeline.now_s())
        self._known[endpoint.worker] = known
        self._rosters[endpoint.role].sessions[endpoint.worker] = known
        lives = tuple(known.endpoint for known in self._known.values())
        self.reception.members(Membership(0, lives))
        self.reception.connected(endpoint)

    def _correct(self, worker: WorkerId, refused: Refused) -> bool:
        """As a session does."""
        known = self._known[worker]
        if known.report is None or refused.pending_tokens is None:
            return False
        pending = refused.pending_tokens
        known.report = structs.replace(known.report, pending_prefill_tokens=pending)
        known.heard_s = self.timeline.now_s()
        return True

    def _roster_of(self, role: Role) -> Roster:
        peers: dict[WorkerId, Peer] = {
            worker: known for worker, known in self._known.items() if known.endpoint.role is role
        }
        return Roster(peers, frozenset(peers))
