"""The destination's side of a hand-off, as stories: events in, commands out."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers import events
from tercet.workers.move import (
    Arrival,
    ArrivalCommand,
    ArrivalEvent,
    Cancelled,
    Intake,
    Linked,
    LinkLost,
    Outcome,
    Tick,
)
from tercet.workers.move import ArrivalPhase as Phase
from tercet.workers.transfer.base import JobId, Pulled, PullFailed, PullJob, Settled
from tercet.workers.transfer.codec_choice import Codec

R, E, SOURCE = RequestId("r"), Epoch(5), Epoch(4)
BLOCK_TOKENS = 4
PROMPT = 10  # two full blocks and half of a third
BLOCKS = (20, 21, 22)
HOUR = 3600.0


class Story:
    """A hand-off, the time, and whatever it ordered; every step is validated."""

    def __init__(self, codec: Codec = Codec.NONE) -> None:
        self.now_s = 100.0
        self.arrival = Arrival(
            request=R,
            epoch=E,
            peer="p:1",
            source_epoch=SOURCE,
            output=(),
            intake=Intake(BLOCK_TOKENS, tokens_max=PROMPT + 20, codec=codec, packed_blocks_max=2),
            silence_s_max=30.0,
            heard_s=self.now_s,
        )

    def __call__(self, *happened: ArrivalEvent) -> list[ArrivalCommand]:
        commands: list[ArrivalCommand] = []
        for event in happened:
            commands += self.arrival.handle(event, self.now_s)
            self.arrival.validate()
        return commands


@pytest.fixture
def tell() -> Story:
    return Story()


def reserved(held: int = 0) -> events.Reserved:
    return events.Reserved(R, E, tuple(BlockId(block) for block in BLOCKS), held)


def ready(first: int, *blocks: int, tokens: int = 0) -> wire.Ready:
    covered = tokens or (first + len(blocks)) * BLOCK_TOKENS
    ids = [BlockId(block) for block in blocks]
    return wire.Ready(R, SOURCE, first, ids, [block * 10 for block in blocks], covered)


def commit(*output: int) -> wire.Commit:
    return wire.Commit(R, SOURCE, list(output), PROMPT + len(output) - 1)


def job(number: int, local: tuple[int, ...], remote: tuple[int, ...]) -> PullJob:
    return PullJob(
        JobId(R, E, number),
        "p:1",
        tuple(BlockId(block) for block in remote),
        tuple(BlockId(block) for block in local),
        tuple(block * 10 for block in remote),
    )


def pulled(number: int) -> Pulled:
    return Pulled(JobId(R, E, number), 1000, 0.5)


def failed(number: int, *, in_flight: bool = False) -> PullFailed:
    return PullFailed(JobId(R, E, number), "cable cut", in_flight)


def recompute(*quarantine: int) -> events.Recompute:
    return events.Recompute(R, E, tuple(BlockId(block) for block in quarantine))


def release(*, committed: bool) -> wire.Release:
    return wire.Release(R, SOURCE, committed)


# ---- the way it should go --------------------------------------------------------------------------------------------


def test_a_hand_off_asks_pulls_chunk_by_chunk_and_commits(tell):
    assert tell(reserved()) == []
    assert tell(Linked()) == [wire.Pull(R, SOURCE, 0, as_epoch=E)]
    assert tell(ready(0, 7, 8)) == [job(1, (20, 21), (7, 8))]
    assert tell(pulled(1)) == [events.Arrived(R, E, 8)]
    tell.now_s += 1
    assert tell(ready(2, 9, tokens=10)) == [job(2, (22,), (9,))]
    assert tell(commit(42)) == []
    tell.now_s += 0.25
    assert tell(pulled(2)) == [
        events.Arrived(R, E, 10),
        events.Commit(R, E, (42,), 10, 10, 2000, 1.0, 0.25),
        release(committed=True),
    ]
    assert (tell.arrival.phase, tell.arrival.outcome) == (Phase.OVER, Outcome.COMMITTED)


def test_the_link_may_be_there_before_the_blocks(tell):
    assert tell(Linked()) == []
    assert tell(reserved(1)) == [wire.Pull(R, SOURCE, 1, as_epoch=E)]


def test_what_became_ready_during_a_pull_is_pulled_in_one_go(tell):
    tell(reserved(), Linked())
    assert tell(ready(0, 7)) == [job(1, (20,), (7,))]
    assert tell(ready(1, 8), ready(2, 9, tokens=10)) == []
    assert tell(pulled(1)) == [events.Arrived(R, E, 4), job(2, (21, 22), (8, 9))]


def test_blocks_that_are_held_already_are_never_pulled(tell):
    tell(reserved(2), Linked())
    assert tell(ready(2, 9, tokens=10)) == [job(1, (22,), (9,))]
    assert tell(commit(42), pulled(1)) == [
        events.Arrived(R, E, 10),
        events.Commit(R, E, (42,), 10, 2, 1000, 0.5, 0.0),
        release(committed=True),
    ]


def test_a_prompt_that_is_cached_whole_needs_no_pull_at_all(tell):
    tell(reserved(2), Linked())
    assert tell(wire.Commit(R, SOURCE, [42], 8)) == [
        events.Commit(R, E, (42,), 8, 0, 0, 0.0, 0.0),
        release(committed=True),
    ]


def test_a_source_that_had_to_start_again_offers_its_new_blocks(tell):
    tell(reserved(), Linked(), ready(0, 7))
    assert tell(ready(0, 17, 18), pulled(1)) == [
        events.Arrived(R, E, 4),
        job(2, (21,), (18,)),
    ]


# ---- what goes wrong is recomputed -----------------------------------------------------------------------------------


def test_a_failed_pull_is_recomputed_and_the_source_may_let_go(tell):
    tell(reserved(), Linked(), ready(0, 7))
    assert tell(failed(1)) == [recompute(), release(committed=True)]
    assert tell.arrival.phase is Phase.OVER


def test_a_late_pull_is_recomputed_around_its_blocks_until_it_has_settled(tell):
    tell(reserved(), Linked(), ready(0, 7, 8))
    assert tell(failed(1, in_flight=True)) == [recompute(20, 21), release(committed=True)]
    assert tell(commit(42), Cancelled(), LinkLost("x"), Tick()) == []
    assert tell.arrival.phase is Phase.SETTLING
    assert tell(Settled(JobId(R, E, 1))) == [events.Unquarantine((20, 21))]
    assert tell.arrival.phase is Phase.OVER


def test_a_lost_source_is_not_waited_for(tell):
    tell(reserved(), Linked(), ready(0, 7), pulled(1), ready(1, 8))
    assert tell(LinkLost("silent")) == [recompute(21)]
    assert tell(pulled(2)) == [events.Unquarantine((21,))]


def test_after_the_commit_the_last_pull_may_end_without_a_link(tell):
    tell(reserved(), Linked(), ready(0, 7, 8, 9, tokens=10), commit(42))
    assert tell(LinkLost("closed")) == []
    assert [type(command) for command in tell(pulled(1))] == [events.Arrived, events.Commit]


@pytest.mark.parametrize("before", [[Linked(), LinkLost("no")], [LinkLost("no")]])
def test_a_link_lost_before_the_blocks_are_there_is_recomputed_when_they_are(tell, before):
    assert tell(*before) == []
    assert tell(reserved()) == [recompute()]


def test_a_link_that_cannot_be_had_is_recomputed(tell):
    assert tell(reserved(), LinkLost("refused")) == [recompute()]


def test_a_source_that_knows_nothing_of_it_is_recomputed(tell):
    tell(reserved(), Linked())
    assert tell(wire.Gone(R, SOURCE, wire.GoneReason.UNKNOWN)) == [recompute()]


def test_a_source_that_is_alive_but_says_nothing_is_given_up_in_the_end(tell):
    tell(reserved(), Linked())
    tell.now_s += 29
    assert tell(Tick(), ready(0, 7), pulled(1)) != []
    tell.now_s += 29
    assert tell(Tick()) == []
    tell.now_s += 2
    assert tell(Tick()) == [recompute(), release(committed=True)]


def test_a_pull_in_flight_has_its_own_deadline(tell):
    tell(reserved(), Linked(), ready(0, 7))
    tell.now_s += HOUR
    assert tell(Tick()) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (ready(1, 8), "out of order"),
        (ready(0, 1, 2, 3, 4), "more blocks"),
        (wire.Ready(R, SOURCE, 0, [BlockId(1)], [], 4), "out of order"),
        (commit(42), "before it had published"),
        (commit(), "other tokens"),
    ],
)
def test_a_source_that_makes_no_sense_is_not_believed(tell, wrong, why):
    tell(reserved(), Linked())
    assert tell(wrong) == [recompute(), release(committed=True)]
    assert why in tell.arrival.reason


def test_a_commit_that_contradicts_the_known_output_is_not_believed(tell):
    tell.arrival.output = (1, 2)
    tell(reserved(), Linked(), ready(0, 7, 8, 9, tokens=12), pulled(1))
    assert tell(commit(1, 3, 4)) == [recompute(), release(committed=True)]


# ---- nobody wants it any more ----------------------------------------------------------------------------------------


def test_a_cancel_while_nothing_is_written_frees_at_once(tell):
    tell(reserved(), Linked())
    assert tell(Cancelled()) == [events.Drop(R, E), release(committed=False)]
    assert tell.arrival.phase is Phase.OVER


def test_a_cancel_during_a_pull_keeps_its_blocks_until_it_has_ended(tell):
    tell(reserved(), Linked(), ready(0, 7))
    assert tell(Cancelled()) == [events.Drop(R, E, (BlockId(20),)), release(committed=False)]
    assert tell(failed(1, in_flight=True)) == []
    assert tell(Settled(JobId(R, E, 1))) == [events.Unquarantine((20,))]


def test_a_request_that_ended_with_its_first_token_is_dropped_when_the_front_door_says_so(tell):
    tell(reserved(), Linked())
    assert tell(wire.Gone(R, SOURCE, wire.GoneReason.FINISHED)) == []
    assert not tell.arrival.leased
    assert tell(Cancelled()) == [events.Drop(R, E)]


def test_a_source_that_is_lost_right_after_the_last_token_may_not_have_told_the_front_door(tell):
    tell(reserved(), Linked(), wire.Gone(R, SOURCE, wire.GoneReason.FINISHED))
    assert tell(LinkLost("gone")) == [recompute()]


def test_a_front_door_that_does_not_know_of_the_end_gets_it_from_us(tell):
    tell(reserved(), Linked(), wire.Gone(R, SOURCE, wire.GoneReason.FINISHED))
    tell.now_s += 29
    assert tell(Tick()) == []
    tell.now_s += 2
    assert tell(Tick()) == [recompute()]


def test_a_refused_reservation_ends_it(tell):
    assert tell(Linked(), events.Ended(R, E)) == []
    assert tell.arrival.outcome is Outcome.DROPPED


# ---- packed ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packing() -> Story:
    """A hand-off that is asked for packed blocks, two in one pull at most."""
    return Story(Codec.INT8)


def in_slots(plain: wire.Ready, *slots: int) -> wire.Ready:
    words = [slot * 100 for slot in slots]
    ids = [BlockId(slot) for slot in slots]
    return msgspec.structs.replace(plain, slots=ids, slot_generations=words, pack_s=0.2)


def packed_job(number: int, local: tuple[int, ...], slots: tuple[int, ...]) -> PullJob:
    plain = job(number, local, slots)
    words = tuple(slot * 100 for slot in slots)
    return msgspec.structs.replace(plain, generations=words, codec=Codec.INT8)


def took(blocks: int) -> wire.Took:
    return wire.Took(R, SOURCE, blocks)


def test_blocks_that_lie_packed_are_read_from_their_slots_and_the_source_is_told(packing):
    packing(reserved())
    assert packing(Linked()) == [wire.Pull(R, SOURCE, 0, codec="int8", as_epoch=E)]
    assert packing(in_slots(ready(0, 7, 8), 1, 2)) == [packed_job(1, (20, 21), (1, 2))]
    assert packing(pulled(1)) == [events.Arrived(R, E, 8), took(2)]
    assert packing(ready(2, 9, tokens=10)) == [job(2, (22,), (9,))]
    owned = packing(commit(42), pulled(2))[1]
    assert isinstance(owned, events.Commit)
    assert (owned.pulled_tokens, owned.pulled_codec) == (10, "int8")


def test_who_asked_and_was_offered_nothing_packed_reports_no_codec(packing):
    packing(reserved(), Linked(), ready(0, 7, 8, 9, tokens=10), commit(42))
    owned = packing(pulled(1))[1]
    assert isinstance(owned, events.Commit)
    assert owned.pulled_codec == "none"


def test_who_did_not_ask_ignores_slots(tell):
    tell(reserved(), Linked())
    assert tell(in_slots(ready(0, 7, 8), 1, 2)) == [job(1, (20, 21), (7, 8))]
    assert tell(pulled(1)) == [events.Arrived(R, E, 8)]


def test_packed_and_plain_blocks_are_pulled_one_after_the_other(packing):
    packing(reserved(), Linked())
    assert packing(ready(0, 7)) == [job(1, (20,), (7,))]
    packing(in_slots(ready(1, 8), 2), ready(2, 9, tokens=10))
    assert packing(pulled(1)) == [events.Arrived(R, E, 4), packed_job(2, (21,), (2,))]
    assert packing(pulled(2)) == [events.Arrived(R, E, 8), took(2), job(3, (22,), (9,))]


def test_one_packed_pull_takes_no_more_than_there_is_room_to_unpack(packing):
    packing(reserved(), Linked())
    offered = in_slots(ready(0, 7, 8, 9, tokens=10), 1, 2, 3)
    assert packing(offered) == [packed_job(1, (20, 21), (1, 2))]
    assert packing(pulled(1)) == [events.Arrived(R, E, 8), took(2), packed_job(2, (22,), (3,))]


def test_a_packed_pull_that_fails_is_pulled_as_it_is_once(packing):
    packing(reserved(), Linked(), in_slots(ready(0, 7, 8), 1, 2))
    assert packing(failed(1)) == [job(2, (20, 21), (7, 8))]
    assert packing(failed(2)) == [recompute(), release(committed=True)]


def test_a_packed_pull_that_is_late_is_given_up_like_any_other(packing):
    packing(reserved(), Linked(), in_slots(ready(0, 7, 8), 1, 2))
    assert packing(failed(1, in_flight=True)) == [recompute(20, 21), release(committed=True)]
    assert packing(Settled(JobId(R, E, 1))) == [events.Unquarantine((20, 21))]


@pytest.mark.parametrize("slots", [(1,), (1, 2, 3)])
def test_other_slots_than_blocks_are_refused(packing, slots):
    packing(reserved(), Linked())
    assert packing(in_slots(ready(0, 7, 8), *slots)) == [recompute(), release(committed=True)]


def test_parts_of_what_was_published_at_once_are_one_round_of_a_live_move(live):
    live.arrival.intake.codec = Codec.INT8
    live.arrival.intake.tokens_max = 60
    live(reserved(), Linked())
    parts = [in_slots(ready(first, first, tokens=40), first + 50) for first in range(6)]
    live(parts[0], extended(*range(30, 42)))
    for number, part in enumerate(parts[1:], start=1):
        assert FREEZE not in [*live(part), *live(pulled(number))], "most of it is to come"


# ---- live moves ------------------------------------------------------------------------------------------------------


@pytest.fixture
def live(tell: Story) -> Story:
    """Ten tokens at the time of the order, in three blocks."""
    tell.arrival.live = tell.arrival.intake.grows = True
    return tell


FREEZE = wire.Freeze(R, SOURCE)


def decline(reason: str, *quarantine: int) -> events.Decline:
    return events.Decline(R, E, reason, tuple(BlockId(block) for block in quarantine))


def committed(tokens: int, *output: int) -> wire.Commit:
    return wire.Commit(R, SOURCE, list(output), tokens)


def extended(*blocks: int) -> events.Extended:
    return events.Extended(R, E, tuple(BlockId(block) for block in blocks))


def test_a_running_request_is_frozen_when_only_its_tail_is_missing(live):
    assert live(reserved(), Linked()) == [wire.Pull(R, SOURCE, 0, 0, live=True, as_epoch=E)]
    assert live(ready(0, 5, 6)) == [events.Extend(R, E, 24), job(1, (20, 21), (5, 6))]
    assert live(extended(30, 31, 32)) == []
    assert live(ready(2, 7)) == []
    assert live(pulled(1)) == [events.Arrived(R, E, 8), FREEZE, job(2, (22,), (7,))]
    assert live(pulled(2)) == [events.Arrived(R, E, 12)]
    assert live(ready(3, 8, tokens=13), committed(13, 1, 2, 3, 4)) == [job(3, (30,), (8,))]
    live.now_s += 0.25
    assert live(pulled(3)) == [
        events.Arrived(R, E, 13),
        events.Commit(R, E, (1, 2, 3, 4), 13, 13, 3000, 1.5, 0.25),
        release(committed=True),
    ]


def test_a_request_that_waits_in_a_queue_is_frozen_at_once_and_has_nothing_to_pull(live):
    live(reserved(), Linked())
    assert live(ready(0, tokens=0)) == [FREEZE]
    assert live(committed(0)) == [
        events.Commit(R, E, (), 0, 0, 0, 0.0, 0.0),
        release(committed=True),
    ]


def test_a_request_that_outruns_the_pulls_is_frozen_in_the_third_round(live):
    live(reserved(), Linked())
    live(ready(0, 5, 6), extended(30, 31, 32), ready(2, 7, 8), pulled(1))
    assert live(ready(4, 9, 10), pulled(2)) == [
        events.Arrived(R, E, 16),
        FREEZE,
        events.Extend(R, E, 32),
        job(3, (31, 32), (9, 10)),
    ]


def test_the_tail_waits_for_blocks_to_be_pulled_into(live):
    live(reserved(), Linked(), ready(0, 5, 6, 7), pulled(1))
    assert live(ready(3, 8, tokens=14), committed(14, 1, 2, 3, 4, 5)) == []
    assert live(extended(30, 31, 32)) == [job(2, (30,), (8,))]
    assert live(pulled(2))[1].tokens == 14


def test_without_room_for_its_output_it_stays_where_it_is(live):
    live(reserved(), Linked(), ready(0, 5, 6))
    assert live(extended()) == [
        decline("no room for its output", 20, 21),
        release(committed=False),
    ]
    assert live(pulled(1)) == [events.Unquarantine((20, 21))]
    assert live.arrival.outcome is Outcome.DECLINED


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (failed(1), "cable cut"),
        (wire.Gone(R, SOURCE, wire.GoneReason.FINISHED), "the source does not have it"),
        (wire.Gone(R, SOURCE, wire.GoneReason.UNKNOWN), "the source does not have it"),
        (LinkLost("silent"), "silent"),
    ],
)
def test_a_live_move_that_fails_is_declined_and_never_recomputed(live, broken, reason):
    live(reserved(), Linked(), ready(0, 5, 6))
    declined = live(broken)[0]
    assert isinstance(declined, events.Decline)
    assert declined.reason == reason


def test_what_comes_back_with_the_log_rewritten_is_declined(live):
    live.arrival.output = (1, 2)
    live(reserved(), Linked(), ready(0, tokens=0))
    assert isinstance(live(committed(0, 1, 3))[0], events.Decline)


# ---- any order of events ---------------------------------------------------------------------------------------------


class World:
    """Lets everything happen that can happen, keeps account of memory in flight, and checks every command."""

    def __init__(self) -> None:
        self.tell = Story(Codec.INT8)
        self.reserved = self.linked = self.asked = self.gone = False
        self.flying: PullJob | None = None
        self.late = False
        self.quarantined: set[int] = set()
        self.checked: set[int] = set()
        self.decisions: list[ArrivalCommand] = []
        self.releases = 0

    def possible(self) -> dict[str, Callable[[], ArrivalEvent]]:
        flying = self.flying
        moves: dict[str, Callable[[], ArrivalEvent]] = {
            "cancel": Cancelled,
            "tick": Tick,
            "wait": lambda: self._wait(),
            "lost": lambda: LinkLost("lost"),
        }
        if not self.reserved:
            moves["reserve 0"] = lambda: reserved(0)
            moves["reserve 2"] = lambda: reserved(2)
            moves["refuse"] = lambda: events.Ended(R, E)
        if not self.linked:
            moves["link"] = Linked
        if self.asked and not self.gone:
            intake = self.tell.arrival.intake
            first = intake.held_blocks + len(intake.offers)
            if first < 3:
                plain = ready(first, first + 7, tokens=min(4 * first + 4, 10))
                moves["ready"] = lambda: plain
                moves["ready packed"] = lambda: in_slots(plain, first + 70)
            moves["anew"] = lambda: ready(intake.held_blocks, 17)
            moves["anew packed"] = lambda: in_slots(ready(intake.held_blocks, 17), 71)
            moves["gap"] = lambda: ready(first + 1, 9)
            moves["commit"] = lambda: commit(42)
            moves["gone"] = lambda: wire.Gone(R, SOURCE, wire.GoneReason.UNKNOWN)
            moves["finished"] = lambda: wire.Gone(R, SOURCE, wire.GoneReason.FINISHED)
        if flying is not None:
            if self.late:
                moves["settle"] = lambda: Settled(flying.id)
            else:
                moves["pulled"] = lambda: Pulled(flying.id, 1000, 0.5)
                moves["failed"] = lambda: PullFailed(flying.id, "cut", in_flight=False)
                moves["late"] = lambda: PullFailed(flying.id, "late", in_flight=True)
        return moves

    def _wait(self) -> ArrivalEvent:
        self.tell.now_s += 31
        return Tick()

    def happen(self, name: str) -> None:
        event = self.possible()[name]()
        self.reserved |= isinstance(event, events.Reserved | events.Ended)
        self.linked |= isinstance(event, Linked | LinkLost)
        self.gone |= isinstance(event, wire.Gone | LinkLost)
        ended = self.flying if name in ("pulled", "failed", "settle") else None
        if ended is not None:
            self.flying, self.late = None, False
            if name == "pulled":
                self.checked.update(ended.local_blocks)
        self.late |= name == "late"
        for command in self.tell(event):
            self.check(command)

    def check(self, command: ArrivalCommand) -> None:
        flying = set(self.flying.local_blocks) if self.flying else set()
        match command:
            case wire.Pull():
                assert self.reserved
                assert not self.asked
                self.asked = True
            case wire.Release():
                self.releases += 1
                assert self.asked
                assert self.decisions
            case PullJob():
                assert self.flying is None, "one pull at a time"
                assert not self.decisions
                assert not self.checked.intersection(command.local_blocks), "twice"
                self.flying = command
            case events.Recompute(quarantine=quarantine) | events.Drop(quarantine=quarantine):
                assert not self.decisions
                assert set(quarantine) == flying, "exactly what may still be written"
                self.quarantined = set(quarantine)
                self.decisions.append(command)
            case events.Commit():
                assert not self.decisions
                assert not flying
                held = self.tell.arrival.intake.held_blocks
                assert self.checked == set(BLOCKS[held:]), "owned without having been checked"
                self.decisions.append(command)
            case events.Arrived(tokens=tokens):
                assert not self.decisions
                held = self.tell.arrival.intake.held_blocks
                assert tokens <= (held + len(self.checked)) * BLOCK_TOKENS
            case events.Unquarantine(blocks=blocks):
                assert set(blocks) == self.quarantined
                assert not flying, "freed under a read"
                self.quarantined = set()


KINDLY = {
    "reserve 0",
    "reserve 2",
    "link",
    "ready",
    "ready packed",
    "anew",
    "commit",
    "pulled",
    "settle",
    "tick",
}
"""What happens nine times in ten, so that stories get far before something breaks."""


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_order_of_events_ends_with_one_decision_and_no_block_in_danger(data):
    world = World()
    for _ in range(data.draw(st.integers(0, 25), label="steps")):
        moves = sorted(world.possible())
        kindly = [move for move in moves if move in KINDLY]
        rudely = data.draw(st.integers(0, 9)) == 0 or not kindly
        world.happen(data.draw(st.sampled_from(moves if rudely else kindly)))
        if world.tell.arrival.phase is Phase.OVER:
            break
    for last in ("cancel", "settle", "pulled"):
        if last in world.possible() and world.tell.arrival.phase is not Phase.OVER:
            world.happen(last)
    arrival = world.tell.arrival
    assert arrival.phase is Phase.OVER
    assert world.flying is None
    assert not world.quarantined
    assert len(world.decisions) == 1 or arrival.reason == "the engine gave it up"
    assert world.releases <= 1
    if world.asked and not world.gone:
        assert world.releases == 1, "the source was left waiting for its lease to end"
