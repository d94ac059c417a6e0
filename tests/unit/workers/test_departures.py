"""The source's side of hand-offs, as stories. A lease here lasts 10 s."""

import msgspec
import pytest

from tercet import wire
from tercet.ids import BlockId, Epoch, RequestId
from tercet.request import FinishReason, TokenLogprobs
from tercet.wire import Commit, Failed, Gone, GoneReason, HandedOff, Pull, Ready, Renew, Usage
from tercet.workers import events
from tercet.workers.departures import FINISHED_MAX, Departures
from tercet.workers.events import Absent, Drop, Ended, Held, Published, Said
from tercet.workers.move import ToOwner, ToReader

R, E = RequestId("r"), Epoch(2)
UNKNOWN = Gone(R, E, GoneReason.UNKNOWN)


def published(first: int, *blocks: int, tokens: int, exposure: int = 0) -> Published:
    ids = tuple(BlockId(block) for block in blocks)
    return Published(R, E, first, ids, tuple(block * 10 for block in blocks), tokens, exposure)


def ready(first: int, *blocks: int, tokens: int) -> Ready:
    return Ready(R, E, first, list(blocks), [block * 10 for block in blocks], tokens)


HELD = Held(R, E, "f", (42,), 40, cached_tokens=16, computed_tokens=4)
DONE = wire.Release(R, E, True)
GIVEN_UP = wire.Release(R, E, False)
USAGE = Usage(cached_tokens=16, computed_tokens=4)


@pytest.fixture
def departures() -> Departures:
    departures = Departures(lease_s=10.0)
    departures.open(R, E, "f")
    return departures


def test_a_reader_that_comes_first_is_told_of_every_chunk_and_of_the_end(departures):
    assert departures.on_reader("d", Pull(R, E, 0), 0) == []
    assert departures.on_engine(published(0, 5, 6, tokens=32), 1) == [
        ToReader("d", ready(0, 5, 6, tokens=32))
    ]
    assert departures.on_engine(published(2, 9, tokens=40), 2) == [
        ToReader("d", ready(2, 9, tokens=40))
    ]
    assert departures.on_engine(HELD, 2) == [ToReader("d", Commit(R, E, [42], 40))]
    assert departures.on_reader("d", DONE, 3) == [
        events.Release(R, E),
        ToOwner("f", HandedOff(R, E, USAGE)),
    ]
    assert len(departures) == departures.leases == 0


def test_a_reader_that_comes_last_gets_it_all_at_once(departures):
    departures.on_engine(published(0, 5, 6, tokens=32), 1)
    departures.on_engine(HELD, 2)
    assert departures.on_reader("d", Pull(R, E, 0), 3) == [
        ToReader("d", ready(0, 5, 6, tokens=32)),
        ToReader("d", Commit(R, E, [42], 40)),
    ]


def test_an_order_given_twice_does_not_forget_what_was_published(departures):
    departures.on_engine(published(0, 5, tokens=16), 1)
    departures.open(R, E, "f")
    assert departures.on_reader("d", Pull(R, E, 0), 2) == [ToReader("d", ready(0, 5, tokens=16))]


def test_blocks_the_reader_holds_are_not_offered(departures):
    departures.on_engine(published(0, 5, 6, 7, tokens=48), 1)
    assert departures.on_reader("d", Pull(R, E, 2), 1) == [ToReader("d", ready(2, 7, tokens=48))]
    assert departures.on_engine(published(0, 15, 16, 17, tokens=48), 2) == [
        ToReader("d", ready(2, 17, tokens=48))
    ]


def test_a_lease_that_is_renewed_lives_and_one_that_is_not_ends(departures):
    departures.on_engine(HELD, 0)
    departures.on_reader("d", Pull(R, E, 0), 0)
    for now_s in range(1, 30):
        departures.on_reader("d", Renew([(R, E)]), now_s)
        assert departures.tick(now_s) == []
    assert departures.tick(38.9) == []
    expired = departures.tick(39.0)
    assert expired[0] == events.Release(R, E)
    assert expired[2:] == [ToReader("d", UNKNOWN)]
    match expired[1]:
        case ToOwner(owner="f", message=Failed(request=request, retryable=True)):
            assert request == R
        case other:
            pytest.fail(f"{other}")
    assert len(departures) == 0


def test_a_hand_off_nobody_pulls_ends_a_lease_after_it_was_held(departures):
    departures.on_engine(published(0, 5, tokens=16), 0)
    assert departures.tick(1000) == [], "a running request needs no lease"
    departures.on_engine(HELD, 1000)
    assert departures.tick(1009) == []
    assert departures.tick(1010)[0] == events.Release(R, E)


def test_a_stranger_cannot_renew_or_release(departures):
    departures.on_engine(HELD, 0)
    departures.on_reader("d", Pull(R, E, 0), 0)
    assert departures.on_reader("x", DONE, 1) == []
    departures.on_reader("x", Renew([(R, E), (RequestId("other"), E)]), 9)
    assert departures.tick(10) != []


def test_a_lost_reader_leaves_the_lease_for_another(departures):
    departures.on_engine(HELD, 0)
    departures.on_reader("d", Pull(R, E, 0), 5)
    departures.reader_lost("d", 5)
    assert departures.tick(14) == []
    assert departures.on_reader("d2", Pull(R, E, 0), 14) == [ToReader("d2", Commit(R, E, [42], 40))]
    assert departures.on_reader("d2", DONE, 15)[0] == events.Release(R, E)


def test_a_second_destination_replaces_the_first(departures):
    departures.on_reader("d", Pull(R, E, 0), 0)
    assert departures.on_reader("d2", Pull(R, E, 0), 1) == [ToReader("d", UNKNOWN)]
    assert departures.on_engine(HELD, 2) == [ToReader("d2", Commit(R, E, [42], 40))]
    assert departures.on_reader("d", DONE, 3) == []


def test_a_destination_that_gives_up_leaves_it_for_another(departures):
    departures.on_engine(HELD, 0)
    departures.on_reader("d", Pull(R, E, 0), 1)
    assert departures.on_reader("d", GIVEN_UP, 8) == []
    assert departures.tick(17.9) == []
    assert departures.tick(18.0)[0] == events.Release(R, E)


def test_a_destination_that_recomputes_ends_a_prefill_that_still_runs(departures):
    departures.on_reader("d", Pull(R, E, 0), 0)
    assert departures.on_reader("d", DONE, 1) == [
        Drop(R, E),
        ToOwner("f", HandedOff(R, E, Usage())),
    ]


def test_a_request_that_finished_with_its_first_token_is_remembered(departures):
    said = Said("f", wire.Tokens(R, E, 0, [1], finish=FinishReason.STOP))
    assert departures.on_engine(said, 0) == []
    assert departures.on_engine(Ended(R, E), 0) == []
    assert departures.on_reader("d", Pull(R, E, 0), 1) == [
        ToReader("d", Gone(R, E, GoneReason.FINISHED))
    ]


def test_a_reader_that_waits_learns_at_once_how_it_ended(departures):
    departures.on_reader("d", Pull(R, E, 0), 0)
    departures.on_engine(Said("f", wire.Tokens(R, E, 0, [1], finish=FinishReason.STOP)), 1)
    assert departures.on_engine(Ended(R, E), 1) == [ToReader("d", Gone(R, E, GoneReason.FINISHED))]
    departures.open(R, Epoch(4), "f")
    departures.on_reader("d", Pull(R, Epoch(4), 0), 2)
    assert departures.on_engine(Ended(R, Epoch(4)), 3) == [
        ToReader("d", Gone(R, Epoch(4), GoneReason.UNKNOWN))
    ]


@pytest.mark.parametrize(("request_id", "epoch"), [("other", 2), ("r", 1), ("r", 3)])
def test_another_request_or_epoch_is_unknown(departures, request_id, epoch):
    request, epoch = RequestId(request_id), Epoch(epoch)
    assert departures.on_reader("d", Pull(request, epoch, 0), 0) == [
        ToReader("d", Gone(request, epoch, GoneReason.UNKNOWN))
    ]


def test_a_lost_front_door_takes_its_hand_offs_with_it(departures):
    departures.on_reader("d", Pull(R, E, 0), 0)
    departures.open(RequestId("other"), E, "f2")
    assert departures.owner_lost("f", 2) == [Drop(R, E), ToReader("d", UNKNOWN)]
    assert len(departures) == 1


def test_tokens_of_requests_that_are_not_handed_off_are_none_of_our_business(departures):
    for number in range(10):
        tokens = wire.Tokens(RequestId(f"x{number}"), E, 0, [1], finish=FinishReason.STOP)
        departures.on_engine(Said("f", tokens), 0)
    assert departures.on_reader("d", Pull(RequestId("x1"), E, 0), 0) == [
        ToReader("d", Gone(RequestId("x1"), E, GoneReason.UNKNOWN))
    ]


def test_the_memory_of_finished_requests_is_bounded():
    departures = Departures(lease_s=10.0)
    for number in range(FINISHED_MAX + 1):
        request = RequestId(f"r{number}")
        departures.open(request, E, "f")
        tokens = wire.Tokens(request, E, 0, [1], finish=FinishReason.STOP)
        departures.on_engine(Said("f", tokens), 0)
        departures.on_engine(Ended(request, E), 0)
    oldest, newest = RequestId("r0"), RequestId(f"r{FINISHED_MAX}")
    assert departures.on_reader("d", Pull(oldest, E, 0), 0) == [
        ToReader("d", Gone(oldest, E, GoneReason.UNKNOWN))
    ]
    assert departures.on_reader("d", Pull(newest, E, 0), 0) == [
        ToReader("d", Gone(newest, E, GoneReason.FINISHED))
    ]


# ---- live moves ------------------------------------------------------------------------------------------------------

LIVE = Pull(R, E, 0, known_output=1, live=True, as_epoch=Epoch(3))
FREEZE = wire.Freeze(R, E)
STOPPED = Held(R, E, "f", (41, 42, 43), 42, cached_tokens=0, computed_tokens=40, exposure=1)


@pytest.fixture
def nobody() -> Departures:
    """A worker from which nothing is on its way; what runs is the engine's business."""
    return Departures(lease_s=10.0)


def test_the_first_pull_of_a_running_request_exposes_it(nobody):
    assert nobody.on_reader("d", LIVE, 0) == [events.Expose(R, E, 1)]
    assert nobody.on_engine(published(0, tokens=0, exposure=1), 0) == [
        ToReader("d", ready(0, tokens=0))
    ]
    assert nobody.on_engine(published(0, 5, 6, tokens=32, exposure=1), 0) == [
        ToReader("d", ready(0, 5, 6, tokens=32))
    ]
    assert nobody.on_reader("d", FREEZE, 1) == [events.Freeze(R, E)]
    assert nobody.on_reader("d", FREEZE, 1) == [], "once is enough"
    assert nobody.on_engine(published(2, 9, tokens=42, exposure=1), 1) == [
        ToReader("d", ready(2, 9, tokens=42))
    ]
    assert nobody.on_engine(STOPPED, 1) == [ToReader("d", Commit(R, E, [41, 42, 43], 42))]
    assert nobody.on_reader("d", DONE, 2) == [
        events.Release(R, E),
        ToOwner("f", HandedOff(R, E, Usage(0, 40))),
    ]
    assert len(nobody) == 0


def test_a_request_that_is_not_here_is_gone_for_who_pulls(nobody):
    nobody.on_reader("d", LIVE, 0)
    assert nobody.on_engine(Absent(R, E, 1), 0) == [ToReader("d", UNKNOWN)]
    assert len(nobody) == 0


def test_log_probabilities_go_with_the_tokens_the_destination_does_not_know(nobody):
    known, first, second = (TokenLogprobs(-float(n)) for n in range(3))
    nobody.on_reader("d", LIVE, 0)
    held = msgspec.structs.replace(STOPPED, logprobs=(known, first, second))
    assert nobody.on_engine(held, 1) == [
        ToReader("d", Commit(R, E, [41, 42, 43], 42, [first, second]))
    ]


@pytest.mark.parametrize("broken", [GIVEN_UP, None])
def test_a_running_request_runs_on_when_nobody_pulls_any_more(nobody, broken):
    nobody.on_reader("d", LIVE, 0)
    lost = nobody.reader_lost("d", 1) if broken is None else nobody.on_reader("d", broken, 1)
    assert lost == [events.Thaw(R, E)]
    assert len(nobody) == 0


def test_a_frozen_request_asks_its_front_door_again_and_again(nobody):
    nobody.on_reader("d", LIVE, 0)
    nobody.on_reader("d", FREEZE, 0)
    nobody.on_engine(STOPPED, 0)
    (asked,) = nobody.reader_lost("d", 1)
    assert (asked.owner, type(asked.message)) == ("f", wire.Stalled)
    assert nobody.tick(9) == []
    assert [command.message for command in nobody.tick(10)] == [
        wire.Stalled(R, E, "nobody took over within the lease of 10 s")
    ]
    assert nobody.tick(19) == []
    assert len(nobody.tick(20)) == 1
    assert nobody.resume("f", wire.Resume(R, E, Epoch(3)), 21) == [events.Thaw(R, E, "f")]
    assert len(nobody) == 0


def test_who_pulls_goes_away_while_the_engine_stops_the_request(nobody):
    nobody.on_reader("d", LIVE, 0)
    nobody.on_reader("d", FREEZE, 0)
    assert nobody.reader_lost("d", 1) == []
    (asked,) = nobody.on_engine(STOPPED, 2)
    assert (asked.owner, type(asked.message)) == ("f", wire.Stalled)


def test_what_the_engine_said_of_the_move_before_is_not_taken_for_this_one(nobody):
    nobody.on_reader("d", LIVE, 0)
    nobody.on_reader("d", FREEZE, 0)
    nobody.resume("f", wire.Resume(R, E, Epoch(3)), 1)
    assert nobody.on_reader("e", LIVE, 1) == [events.Expose(R, E, 2)]
    assert nobody.on_engine(published(2, 9, tokens=42, exposure=1), 2) == []
    assert nobody.on_engine(STOPPED, 2) == []


def test_the_answer_to_a_move_before_does_not_end_the_next_one(nobody):
    nobody.on_reader("d", LIVE, 0)
    nobody.reader_lost("d", 1)
    nobody.on_reader("d2", LIVE, 2)
    assert nobody.on_engine(Absent(R, E, 1), 2) == [], "it asked before the request was here"
    assert len(nobody) == 1
    assert nobody.on_engine(Absent(R, E, 2), 3) == [ToReader("d2", UNKNOWN)]


def test_nobody_can_have_committed_to_what_was_not_offered(nobody):
    nobody.on_reader("d", LIVE, 0)
    assert nobody.on_reader("d", DONE, 1) == []
    assert len(nobody) == 1


def test_a_resumed_request_is_gone_for_who_pulls(nobody):
    nobody.on_reader("d", LIVE, 0)
    assert nobody.resume("f", wire.Resume(R, E, Epoch(3)), 1) == [
        ToReader("d", UNKNOWN),
        events.Thaw(R, E, "f"),
    ]
    assert nobody.on_reader("d", DONE, 2) == [], "too late"


def test_an_order_to_resume_that_comes_late_is_not_meant_for_who_pulls_now(nobody):
    """The source would run on beside a destination that has committed."""
    nobody.on_reader("d", LIVE, 0)
    nobody.on_reader("d", FREEZE, 0)
    nobody.on_engine(STOPPED, 0)
    nobody.on_reader("d", GIVEN_UP, 1)
    nobody.on_reader("e", msgspec.structs.replace(LIVE, as_epoch=Epoch(4)), 1)
    assert nobody.resume("f", wire.Resume(R, E, Epoch(3)), 2) == []
    assert nobody.on_reader("e", DONE, 3)[0] == events.Release(R, E)


def test_the_engine_is_asked_to_resume_what_is_not_on_its_way(nobody):
    assert nobody.resume("f", wire.Resume(R, E, Epoch(3)), 1) == [events.Thaw(R, E, "f")]
