"""The source's side of hand-offs, as stories. A lease here lasts 10 s."""

import pytest

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.request import FinishReason
from tercet.wire import Commit, Failed, Gone, GoneReason, HandedOff, Pull, Ready, Renew, Usage
from tercet.workers import events
from tercet.workers.events import Drop, Ended, Held, Published, Said
from tercet.workers.exports import FINISHED_MAX, Exports, ToOwner, ToReader

R, E = RequestId("r"), Epoch(2)
UNKNOWN = Gone(R, E, GoneReason.UNKNOWN)


def published(first: int, *blocks: int, tokens: int) -> Published:
    ids = tuple(BlockId(block) for block in blocks)
    return Published(R, E, first, ids, tuple(block * 10 for block in blocks), tokens)


def ready(first: int, *blocks: int, tokens: int) -> Ready:
    return Ready(R, E, first, list(blocks), [block * 10 for block in blocks], tokens)


HELD = Held(R, E, (42,), cached_tokens=16, computed_tokens=4)
DONE = wire.Release(R, E, True)
GIVEN_UP = wire.Release(R, E, False)
USAGE = Usage(cached_tokens=16, computed_tokens=4)


@pytest.fixture
def exports() -> Exports:
    exports = Exports(lease_s=10.0)
    exports.open(R, E, "f")
    return exports


def test_a_reader_that_comes_first_is_told_of_every_chunk_and_of_the_end(exports):
    assert exports.on_reader("d", Pull(R, E, 0), 0) == []
    assert exports.on_engine(published(0, 5, 6, tokens=32), 1) == [
        ToReader("d", ready(0, 5, 6, tokens=32))
    ]
    assert exports.on_engine(published(2, 9, tokens=40), 2) == [
        ToReader("d", ready(2, 9, tokens=40))
    ]
    assert exports.on_engine(HELD, 2) == [ToReader("d", Commit(R, E, [42]))]
    assert exports.on_reader("d", DONE, 3) == [
        events.Release(R, E),
        ToOwner("f", HandedOff(R, E, USAGE)),
    ]
    assert len(exports) == exports.leases == 0


def test_a_reader_that_comes_last_gets_it_all_at_once(exports):
    exports.on_engine(published(0, 5, 6, tokens=32), 1)
    exports.on_engine(HELD, 2)
    assert exports.on_reader("d", Pull(R, E, 0), 3) == [
        ToReader("d", ready(0, 5, 6, tokens=32)),
        ToReader("d", Commit(R, E, [42])),
    ]


def test_an_order_given_twice_does_not_forget_what_was_published(exports):
    exports.on_engine(published(0, 5, tokens=16), 1)
    exports.open(R, E, "f")
    assert exports.on_reader("d", Pull(R, E, 0), 2) == [ToReader("d", ready(0, 5, tokens=16))]


def test_blocks_the_reader_holds_are_not_offered(exports):
    exports.on_engine(published(0, 5, 6, 7, tokens=48), 1)
    assert exports.on_reader("d", Pull(R, E, 2), 1) == [ToReader("d", ready(2, 7, tokens=48))]
    assert exports.on_engine(published(0, 15, 16, 17, tokens=48), 2) == [
        ToReader("d", ready(2, 17, tokens=48))
    ]


def test_a_lease_that_is_renewed_lives_and_one_that_is_not_ends(exports):
    exports.on_engine(HELD, 0)
    exports.on_reader("d", Pull(R, E, 0), 0)
    for now_s in range(1, 30):
        exports.on_reader("d", Renew([(R, E)]), now_s)
        assert exports.tick(now_s) == []
    assert exports.tick(38.9) == []
    expired = exports.tick(39.0)
    assert expired[0] == events.Release(R, E)
    assert expired[2:] == [ToReader("d", UNKNOWN)]
    match expired[1]:
        case ToOwner(owner="f", message=Failed(request=request, retryable=True)):
            assert request == R
        case other:
            pytest.fail(f"{other}")
    assert len(exports) == 0


def test_a_hand_off_nobody_pulls_ends_a_lease_after_it_was_held(exports):
    exports.on_engine(published(0, 5, tokens=16), 0)
    assert exports.tick(1000) == [], "a running request needs no lease"
    exports.on_engine(HELD, 1000)
    assert exports.tick(1009) == []
    assert exports.tick(1010)[0] == events.Release(R, E)


def test_a_stranger_cannot_renew_or_release(exports):
    exports.on_engine(HELD, 0)
    exports.on_reader("d", Pull(R, E, 0), 0)
    assert exports.on_reader("x", DONE, 1) == []
    exports.on_reader("x", Renew([(R, E), (RequestId("other"), E)]), 9)
    assert exports.tick(10) != []


def test_a_lost_reader_leaves_the_lease_for_another(exports):
    exports.on_engine(HELD, 0)
    exports.on_reader("d", Pull(R, E, 0), 5)
    exports.reader_lost("d")
    assert exports.tick(14) == []
    assert exports.on_reader("d2", Pull(R, E, 0), 14) == [ToReader("d2", Commit(R, E, [42]))]
    assert exports.on_reader("d2", DONE, 15)[0] == events.Release(R, E)


def test_a_second_destination_replaces_the_first(exports):
    exports.on_reader("d", Pull(R, E, 0), 0)
    assert exports.on_reader("d2", Pull(R, E, 0), 1) == [ToReader("d", UNKNOWN)]
    assert exports.on_engine(HELD, 2) == [ToReader("d2", Commit(R, E, [42]))]
    assert exports.on_reader("d", DONE, 3) == []


def test_a_destination_that_gives_up_leaves_it_for_another(exports):
    exports.on_engine(HELD, 0)
    exports.on_reader("d", Pull(R, E, 0), 1)
    assert exports.on_reader("d", GIVEN_UP, 8) == []
    assert exports.tick(17.9) == []
    assert exports.tick(18.0)[0] == events.Release(R, E)


def test_a_destination_that_recomputes_ends_a_prefill_that_still_runs(exports):
    exports.on_reader("d", Pull(R, E, 0), 0)
    assert exports.on_reader("d", DONE, 1) == [Drop(R, E), ToOwner("f", HandedOff(R, E, Usage()))]


def test_a_request_that_finished_with_its_first_token_is_remembered(exports):
    said = Said("f", wire.Tokens(R, E, 0, [1], finish=FinishReason.STOP))
    assert exports.on_engine(said, 0) == []
    assert exports.on_engine(Ended(R, E), 0) == []
    assert exports.on_reader("d", Pull(R, E, 0), 1) == [
        ToReader("d", Gone(R, E, GoneReason.FINISHED))
    ]


def test_a_reader_that_waits_learns_at_once_how_it_ended(exports):
    exports.on_reader("d", Pull(R, E, 0), 0)
    exports.on_engine(Said("f", wire.Tokens(R, E, 0, [1], finish=FinishReason.STOP)), 1)
    assert exports.on_engine(Ended(R, E), 1) == [ToReader("d", Gone(R, E, GoneReason.FINISHED))]
    exports.open(R, Epoch(4), "f")
    exports.on_reader("d", Pull(R, Epoch(4), 0), 2)
    assert exports.on_engine(Ended(R, Epoch(4)), 3) == [
        ToReader("d", Gone(R, Epoch(4), GoneReason.UNKNOWN))
    ]


@pytest.mark.parametrize(("request_id", "epoch"), [("other", 2), ("r", 1), ("r", 3)])
def test_another_request_or_epoch_is_unknown(exports, request_id, epoch):
    request, epoch = RequestId(request_id), Epoch(epoch)
    assert exports.on_reader("d", Pull(request, epoch, 0), 0) == [
        ToReader("d", Gone(request, epoch, GoneReason.UNKNOWN))
    ]


def test_a_lost_front_door_takes_its_hand_offs_with_it(exports):
    exports.on_reader("d", Pull(R, E, 0), 0)
    exports.open(RequestId("other"), E, "f2")
    assert exports.owner_lost("f") == [Drop(R, E), ToReader("d", UNKNOWN)]
    assert len(exports) == 1


def test_tokens_of_requests_that_are_not_handed_off_are_none_of_our_business(exports):
    for number in range(10):
        tokens = wire.Tokens(RequestId(f"x{number}"), E, 0, [1], finish=FinishReason.STOP)
        exports.on_engine(Said("f", tokens), 0)
    assert exports.on_reader("d", Pull(RequestId("x1"), E, 0), 0) == [
        ToReader("d", Gone(RequestId("x1"), E, GoneReason.UNKNOWN))
    ]


def test_the_memory_of_finished_requests_is_bounded():
    exports = Exports(lease_s=10.0)
    for number in range(FINISHED_MAX + 1):
        request = RequestId(f"r{number}")
        exports.open(request, E, "f")
        tokens = wire.Tokens(request, E, 0, [1], finish=FinishReason.STOP)
        exports.on_engine(Said("f", tokens), 0)
        exports.on_engine(Ended(request, E), 0)
    oldest, newest = RequestId("r0"), RequestId(f"r{FINISHED_MAX}")
    assert exports.on_reader("d", Pull(oldest, E, 0), 0) == [
        ToReader("d", Gone(oldest, E, GoneReason.UNKNOWN))
    ]
    assert exports.on_reader("d", Pull(newest, E, 0), 0) == [
        ToReader("d", Gone(newest, E, GoneReason.FINISHED))
    ]
