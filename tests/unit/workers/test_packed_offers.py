"""The source's side towards a reader that asked for packed blocks, as stories: orders to pack, answers, and what is said when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.wire import Commit, Gone, GoneReason, Pull, Ready
from tercet.workers import events
from tercet.workers.departures import Departures
from tercet.workers.events import Ended, Held, Published
from tercet.workers.move import Pack, Packed, PackingTerms, SourceCommand, ToReader, Unstage
from tercet.workers.transfer.codec_choice import Codec

R, E = RequestId("r"), Epoch(2)
TERMS = PackingTerms(frozenset({Codec.INT8}), blocks_min=2, blocks_max=4)
PULL = Pull(R, E, 0, codec="int8")
HELD = Held(R, E, "f", (42,), 40, cached_tokens=0, computed_tokens=40)
COMMIT = ToReader("d", Commit(R, E, [42], 40))
GONE = ToReader("d", Gone(R, E, GoneReason.UNKNOWN))


def ids(*blocks: int) -> tuple[BlockId, ...]:
    return tuple(map(BlockId, blocks))


def published(first: int, *blocks: int, exposure: int = 0) -> Published:
    words = tuple(block * 10 for block in blocks)
    return Published(R, E, first, ids(*blocks), words, 16 * (first + len(blocks)), exposure)


def ready(
    first: int, *blocks: int, tokens: int = 0, slots: tuple[int, ...] = (), pack_s: float = 0.0
) -> ToReader:
    tokens = tokens or 16 * (first + len(blocks))
    words = [block * 10 for block in blocks]
    stage = list(ids(*slots)), [slot + 1 for slot in slots], pack_s
    return ToReader("d", Ready(R, E, first, list(ids(*blocks)), words, tokens, *stage))


def order(number: int, *blocks: int) -> Pack:
    return Pack(R, E, number, ids(*blocks), tuple(block * 10 for block in blocks), Codec.INT8)


def packed(number: int, *slots: int) -> Packed:
    return Packed(R, E, number, ids(*slots), tuple(slot + 1 for slot in slots), 0.5)


def refused(number: int) -> Packed:
    return Packed(R, E, number)


@pytest.fixture
def source() -> Departures:
    """A hand-off is open and a reader has asked for int8."""
    departures = Departures(10.0, TERMS)
    departures.open(R, E, "f")
    assert departures.on_reader("d", PULL, 0) == []
    return departures


def test_blocks_are_offered_when_they_are_packed_and_the_commit_waits_for_them(source):
    assert source.on_engine(published(0, 5, 6), 0) == [order(1, 5, 6)]
    assert source.on_engine(published(2, 7, 8, 9), 0) == [order(2, 7, 8, 9)]
    assert source.on_engine(HELD, 0) == []
    assert source.on_packed(packed(1, 0, 1)) == [ready(0, 5, 6, slots=(0, 1), pack_s=0.5)]
    assert source.on_packed(packed(2, 2, 3, 4)) == [
        ready(2, 7, 8, 9, slots=(2, 3, 4), pack_s=0.5),
        COMMIT,
    ]


def test_what_is_not_packed_waits_for_its_turn_too(source):
    assert source.on_engine(published(0, 5, 6), 0) == [order(1, 5, 6)]
    assert source.on_engine(published(2, 7), 0) == [], "one is too few to be packed"
    assert source.on_packed(packed(1, 0, 1)) == [
        ready(0, 5, 6, slots=(0, 1), pack_s=0.5),
        ready(2, 7),
    ]
    assert source.on_engine(published(3, 8), 0) == [ready(3, 8)]


def test_where_there_is_no_room_blocks_are_offered_as_they_are_and_in_order(source):
    source.on_engine(published(0, 5, 6), 0)
    assert source.on_engine(published(2, 7, 8), 0) == [order(2, 7, 8)]
    assert source.on_packed(refused(2)) == []
    assert source.on_packed(packed(1, 0, 1)) == [
        ready(0, 5, 6, slots=(0, 1), pack_s=0.5),
        ready(2, 7, 8),
    ]


def test_a_block_that_was_reused_while_it_was_packed_keeps_no_slots(source):
    source.on_engine(published(0, 5, 6), 0)
    reused = Packed(R, E, 1, ids(0, 1), (), 0.5)
    assert source.on_packed(reused) == [Unstage(ids(0, 1)), ready(0, 5, 6)]


def test_many_blocks_are_packed_in_equal_parts_that_say_what_there_is_in_all(source):
    assert source.on_engine(published(0, *range(1, 7)), 0) == [
        order(1, 1, 2, 3),
        order(2, 4, 5, 6),
    ]
    assert source.on_packed(packed(1, 0, 1, 2)) == [
        ready(0, 1, 2, 3, tokens=96, slots=(0, 1, 2), pack_s=0.5)
    ]


def test_slots_are_kept_until_their_blocks_were_taken(source):
    source.on_engine(published(0, 5, 6), 0)
    source.on_engine(published(2, 7, 8), 0)
    source.on_packed(packed(1, 0, 1))
    source.on_packed(packed(2, 2, 3))
    assert source.on_reader("x", wire.Took(R, E, 4), 0) == [], "a stranger"
    assert source.on_reader("d", wire.Took(R, E, 3), 0) == [Unstage(ids(0, 1))]
    assert source.on_reader("d", wire.Took(R, E, 3), 0) == []
    source.on_engine(HELD, 0)
    done = source.on_reader("d", wire.Release(R, E, True), 1)
    assert done[0] == events.Release(R, E)
    assert done[-1] == Unstage(ids(2, 3))


@pytest.mark.parametrize("how", ["gave up", "lost", "expired", "ended", "replaced"])
def test_no_slot_outlives_its_reader(source, how):
    source.on_engine(published(0, 5, 6), 0)
    source.on_engine(published(2, 7, 8), 0)
    source.on_packed(packed(1, 0, 1))
    source.on_engine(HELD, 0)
    ends = {
        "gave up": lambda: source.on_reader("d", wire.Release(R, E, False), 1),
        "lost": lambda: source.reader_lost("d", 1),
        "expired": lambda: source.tick(100),
        "ended": lambda: source.on_engine(Ended(R, E), 1),
        "replaced": lambda: source.on_reader("d2", Pull(R, E, 0), 1),
    }
    said = ends[how]()
    assert Unstage(ids(0, 1)) in said
    assert (GONE in said) is (how in ("expired", "ended", "replaced"))
    assert source.on_packed(packed(2, 2, 3)) == [Unstage(ids(2, 3))], "nobody waits for it"
    source.validate()


def test_a_second_reader_is_offered_everything_anew(source):
    source.on_engine(published(0, 5, 6), 0)
    source.on_engine(HELD, 0)
    again = source.on_reader("d2", PULL, 1)
    assert again == [GONE, order(2, 5, 6)]
    assert source.on_packed(packed(1, 0, 1)) == [Unstage(ids(0, 1))], "asked for by the first one"
    assert [command.reader for command in source.on_packed(packed(2, 2, 3))] == ["d2", "d2"]


@pytest.mark.parametrize("codec", ["none", "fp8", "of the future"])
def test_who_asks_for_nothing_that_is_allowed_is_offered_blocks_as_they_are(codec):
    source = Departures(10.0, TERMS)
    source.open(R, E, "f")
    source.on_engine(published(0, 5, 6), 0)
    assert source.on_reader("d", Pull(R, E, 0, codec=codec), 0) == [ready(0, 5, 6)]


def test_a_live_move_says_at_once_that_there_is_nothing_yet():
    source = Departures(10.0, TERMS)
    assert source.on_reader("d", Pull(R, E, 0, live=True, codec="int8"), 0) == [
        events.Expose(R, E, 1)
    ]
    assert source.on_engine(published(0, exposure=1), 0) == [ready(0)]
    assert source.on_engine(published(0, 5, 6, exposure=1), 0) == [order(1, 5, 6)]
    assert source.on_reader("d", wire.Freeze(R, E), 0) == [events.Freeze(R, E)]


@given(st.data())
def test_offers_keep_their_order_and_slots_come_back_whatever_happens(data):
    source, free = Departures(10.0, TERMS), set(range(8))
    kept: set[int] = set()
    orders: list[Pack] = []
    offered, steps = 0, 0

    def carry_out(commands: list[SourceCommand]) -> None:
        nonlocal offered
        for command in commands:
            match command:
                case Pack():
                    orders.append(command)
                case Unstage(slots):
                    assert kept.issuperset(slots)
                    kept.difference_update(slots)
                    free.update(slots)
                case ToReader(message=Ready() as said):
                    assert said.first == offered, "a gap"
                    assert kept.issuperset(said.slots)
                    offered += len(said.blocks)
                case ToReader(message=Commit()):
                    assert offered == steps, "committed before everything was offered"
                case _:
                    pass

    def answer() -> None:
        asked = orders.pop(0)
        count = len(asked.blocks)
        outcome = data.draw(st.sampled_from(["packed", "reused"]))
        if count > len(free):
            return carry_out(source.on_packed(refused(asked.number)))
        slots = tuple(BlockId(free.pop()) for _ in range(count))
        kept.update(slots)
        words = (1,) * count if outcome == "packed" else ()
        return carry_out(source.on_packed(Packed(R, E, asked.number, slots, words)))

    source.open(R, E, "f")
    carry_out(source.on_reader("d", PULL, 0))
    for count in data.draw(st.lists(st.integers(1, 9), max_size=6)):
        carry_out(source.on_engine(published(steps, *range(steps, steps + count)), 0))
        steps += count
        while orders and data.draw(st.booleans()):
            answer()
        if data.draw(st.booleans()):
            carry_out(source.on_reader("d", wire.Took(R, E, offered), 0))
        source.validate()
    carry_out(source.on_engine(HELD, 0))
    ends = [
        lambda: source.on_reader("d", wire.Release(R, E, data.draw(st.booleans())), 1),
        lambda: source.reader_lost("d", 1),
        lambda: source.tick(100),
    ]
    if data.draw(st.booleans()):
        while orders:
            answer()
        assert offered == steps
    carry_out(data.draw(st.sampled_from(ends))())
    while orders:
        answer()
    assert not kept
