"""Known bugs of the field, planted one at a time into the production code: a simulation that finds none of them proves nothing.

Each is a context in which the code is wrong.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from unittest import mock

from faults.climate import Theme
from tercet import wire
from tercet.ids import BlockId
from tercet.request import TokenLog
from tercet.router.events import Closed, Command, WorkerLost
from tercet.router.flight import Flight
from tercet.router.ledger import Slot
from tercet.workers import events
from tercet.workers.arrivals import Arrivals
from tercet.workers.departures import Departures
from tercet.workers.interjection import StepUnderWay
from tercet.workers.move import (
    ArrivalCommand,
    DepartureCommand,
    DeparturePhase,
    Outcome,
    Packed,
    PackedOffers,
    SourceCommand,
    Unstage,
)
from tercet.workers.move.arrival import Arrival
from tercet.workers.move.departure import Departure
from tercet.workers.residents import RUNS, Residents
from tercet.workers.sequence import Sequence as Resident
from tercet.workers.switchboard import Switchboard
from tercet.workers.transfer.codec_choice import Codec
from tercet.workers.transfer.packing import Packer
from tercet.workers.transfer.pull import Phase, Pull

Plant = Callable[[], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Mutation:
    """One bug, and the schedules in which it can be expected to show."""

    name: str
    planted: Callable[[], contextlib.AbstractContextManager[None]]
    theme: Theme


MUTATIONS: list[Mutation] = []


def mutation(theme: Theme = Theme.ANYTHING) -> Callable[[Plant], Plant]:
    def add(plant: Plant) -> Plant:
        MUTATIONS.append(Mutation(plant.__name__, contextlib.contextmanager(plant), theme))
        return plant

    return add


@mutation(Theme.PRESSURE)
def generations_are_not_compared() -> Iterator[None]:
    """What was read is believed, whatever its source did with the block meanwhile."""
    with mock.patch.object(Pull, "_compare", return_value=None):
        yield


@mutation()
def a_pull_is_complete_when_it_is_posted() -> Iterator[None]:
    """The blocks are used while they are still on their way."""
    waits = Pull._ended

    def ended(self: Pull) -> bool:
        if self.phase is Phase.BLOCKS:
            self.reads.clear()
        return waits(self)

    with mock.patch.object(Pull, "_ended", ended):
        yield


@mutation()
def blocks_are_freed_while_a_read_writes_into_them() -> Iterator[None]:
    """An abort does not wait for the read that it cannot stop."""
    with mock.patch.object(Arrival, "_endangered", ()):
        yield


@mutation()
def former_owners_are_listened_to() -> Iterator[None]:
    """Tokens count whoever sends them, and go to the end of the log."""

    def speaker(self: Flight, epoch: int) -> object:
        return self.custody.of(epoch) or self.custody.destination or self.custody.source

    def append(self: TokenLog, epoch: int, index: int, tokens: list[int]) -> list[int]:
        self.tokens.extend(tokens)
        return tokens

    with (
        mock.patch.object(Flight, "_speaker", speaker),
        mock.patch.object(TokenLog, "append", append),
    ):
        yield


@mutation()
def a_source_resumes_by_itself_when_its_lease_ends() -> Iterator[None]:
    """It has said Commit, hears nothing, and takes that for a no."""
    asks = Departure._stalled

    def stalled(self: Departure, reason: str) -> list[DepartureCommand]:
        if self.phase is DeparturePhase.FROZEN:
            thaw = events.Thaw(self.request, self.epoch)
            return self._end([thaw], self._gone(wire.GoneReason.UNKNOWN))
        return asks(self, reason)

    with mock.patch.object(Departure, "_stalled", stalled):
        yield


@mutation(Theme.SLOW)
def leases_are_never_renewed() -> Iterator[None]:
    """And a source whose lease has ended gives its blocks away under the reader's hands."""
    with mock.patch.object(Arrivals, "renew", return_value=None):
        yield


@mutation()
def a_lost_destination_is_charged_for_ever() -> Iterator[None]:
    """The ledger is not told on one of the error paths."""
    lost = Flight._lost

    def forgets(self: Flight, event: WorkerLost) -> list[Command]:
        return [each for each in lost(self, event) if not isinstance(each, Closed)]

    with (
        mock.patch.object(Slot, "__exit__", return_value=None),
        mock.patch.object(Flight, "_lost", forgets),
    ):
        yield


@mutation()
def a_destination_recomputes_a_live_move_that_failed() -> Iterator[None]:
    """As it does with a hand-off, although the source goes on."""

    def give_up(self: Arrival, reason: str) -> list[ArrivalCommand]:
        recompute = events.Recompute(self.request, self.epoch, self._endangered)
        return self._decide(Outcome.RECOMPUTED, reason, recompute, committed=True)

    with mock.patch.object(Arrival, "_give_up", give_up):
        yield


@mutation()
def a_lost_reader_is_not_noticed() -> Iterator[None]:
    """A frozen request waits for a destination that is gone, and nobody asks its front door."""
    with (
        mock.patch.object(Departures, "reader_lost", return_value=[]),
        mock.patch.object(Departures, "tick", return_value=[]),
    ):
        yield


@mutation(Theme.PACKED)
def staging_memory_is_given_back_before_it_is_read() -> Iterator[None]:
    """As soon as it has been offered, and not when the reader has it."""
    on_packed = PackedOffers.on_packed

    def frees(self: PackedOffers, event: Packed) -> list[SourceCommand]:
        commands = on_packed(self, event)
        freed = [Unstage(slots) for _, slots in self.kept]
        self.kept.clear()
        return [*commands, *freed]

    with mock.patch.object(PackedOffers, "on_packed", frees):
        yield


@mutation(Theme.PACKED)
def slots_keep_their_words_when_something_else_is_packed_there() -> Iterator[None]:
    """Who still reads what lay there before, since the link to its source is lost, takes the one for the other."""
    pack = Packer.pack

    def packs(
        self: Packer,
        slots: Sequence[BlockId],
        blocks: Sequence[BlockId],
        generations: Sequence[int],
        codec: Codec,
    ) -> tuple[int, ...] | None:
        words = pack(self, slots, blocks, generations, codec)
        self.staging.generations[:] = 1
        return words and (1,) * len(words)

    with mock.patch.object(Packer, "pack", packs):
        yield


@mutation(Theme.DOORS)
def a_front_door_takes_everybodys_requests_with_it() -> Iterator[None]:
    """A worker drops what runs there when a session ends, whoever owns it."""

    def drops_all(self: Residents, owner: str) -> None:
        for sequence in list(self._sequences.values()):
            if sequence.phase in RUNS:
                self.end(sequence)

    with mock.patch.object(Residents, "_drop_owner", drops_all):
        yield


@mutation(Theme.DOORS)
def a_front_door_that_is_gone_is_kept_for() -> Iterator[None]:
    """What it owned is stepped to its end, which nobody hears."""
    with mock.patch.object(Switchboard, "owner_lost", return_value=None):
        yield


@mutation()
def a_frozen_request_is_stepped_on() -> Iterator[None]:
    """The source publishes everything and commits, and goes on with the next token."""
    hold = Residents.hold

    def goes_on(self: Residents, sequence: Resident) -> None:
        if sequence.hand_off:
            hold(self, sequence)
            return
        full = self._limits.blocks_for(sequence.computed)
        self._outbox.published(sequence, full, sequence.computed)
        self._outbox.held(sequence)

    with mock.patch.object(Residents, "hold", goes_on):
        yield


@mutation()
def requests_change_while_they_are_computed() -> Iterator[None]:
    """What comes amid a step takes effect at once, whomever it concerns."""
    with mock.patch.object(StepUnderWay, "concerned_by", return_value=False):
        yield
