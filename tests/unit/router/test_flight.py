"""A request's life, told as events in and commands out."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NoWorkers,
    Overloaded,
    RequestFailed,
)
from tercet.ids import Epoch, Incarnation, RequestId, WorkerId
from tercet.request import FinishReason, RequestSpec, Sampling, TokenLogprobs
from tercet.role import Role
from tercet.router.events import (
    Bill,
    Bound,
    Busy,
    ChooseDestination,
    ChooseWorker,
    Chosen,
    ClientLeft,
    Closed,
    Command,
    DeadlinePassed,
    Deliver,
    Event,
    Fail,
    Finish,
    Joined,
    Moved,
    NoneUsable,
    Prefilled,
    Relocated,
    Send,
    TurnedAway,
    Unseated,
    Wait,
    Waited,
    WorkerLost,
)
from tercet.router.flight import Flight
from tercet.router.ledger import Ledger
from tercet.router.phase import Phase
from tercet.wire import (
    Adopt,
    Cancel,
    Endpoint,
    Failed,
    HandedOff,
    Refused,
    Resume,
    Stalled,
    Started,
    Submit,
    Tokens,
    Usage,
)

R = RequestId("r")


def worker(name: str, role: Role = Role.DECODE) -> Endpoint:
    return Endpoint(WorkerId(name), Incarnation(f"{name}-life"), role, "127.0.0.1", 1, "here")


P, P2 = worker("prefill-0", Role.PREFILL), worker("prefill-1", Role.PREFILL)
D, D2 = worker("decode-0"), worker("decode-1")
USAGE = Usage(cached_tokens=3, computed_tokens=5)


def request(max_tokens: int = 8, **sampling: object) -> RequestSpec:
    return RequestSpec(R, [1, 2, 3], Sampling(max_tokens=max_tokens, **sampling))  # type: ignore[arg-type]


def flying(
    *events: Event, spec: RequestSpec | None = None, replays_max: int = 3, wait_s_max: float = 1.0
) -> Flight:
    """A flight that has started and seen these events; its state is checked after each."""
    flight = Flight(spec or request(), replays_max=replays_max, wait_s_max=wait_s_max)
    flight.start()
    for event in events:
        flight.handle(event)
        flight.validate()
    return flight


def epoch(number: int) -> Epoch:
    return Epoch(number)


def tokens(
    number: int,
    index: int,
    *values: int,
    finish: FinishReason | None = None,
    usage: Usage | None = None,
) -> Tokens:
    return Tokens(R, epoch(number), index, list(values), finish=finish, usage=usage)


APART = (Chosen(P, hand_off=True), Started(R, epoch(0)), Bound(D))
DECODING = (*APART, tokens(0, 0, 10), HandedOff(R, epoch(0), USAGE), tokens(1, 0, 10, 11))


# ---- the good way ----------------------------------------------------------------------------------------------------


def test_start_asks_for_a_worker() -> None:
    flight = Flight(request(), replays_max=3, wait_s_max=1.0)
    assert flight.start() == [ChooseWorker()]


def test_a_local_request_is_submitted_whole() -> None:
    commands = flying().handle(Chosen(D, hand_off=False))
    assert commands == [Send(D, Submit(request(), epoch(0)))]


def test_a_destination_is_bound_only_when_the_source_starts() -> None:
    flight = flying()
    assert flight.handle(Chosen(P, hand_off=True)) == [
        Send(P, Submit(request(), epoch(0), hand_off=True))
    ]
    assert flight.handle(Started(R, epoch(0))) == [ChooseDestination(P)]
    assert flight.handle(Bound(D)) == [Send(D, Adopt(request(), epoch(1), P, epoch(0)))]


def test_the_first_token_comes_from_the_source_and_the_rest_from_the_destination() -> None:
    flight = flying(*APART)
    assert flight.handle(tokens(0, 0, 10)) == [Prefilled(P), Deliver([10])]
    assert flight.handle(HandedOff(R, epoch(0), USAGE)) == [Bill(USAGE, True), Closed(P)]
    assert flight.handle(tokens(1, 0, 10, 11)) == [Prefilled(D), Deliver([11])]
    last = tokens(1, 2, 12, finish=FinishReason.STOP, usage=USAGE)
    assert flight.handle(last) == [
        Deliver([12]),
        Bill(USAGE, False),
        Closed(D),
        Finish(FinishReason.STOP, D),
    ]
    assert flight.phase is Phase.ENDED


def test_a_faster_destination_leaves_no_gap() -> None:
    """Its socket may be faster than the source's; it repeats the first token, and the source's own is dropped."""
    flight = flying(*APART)
    commands = flight.handle(tokens(1, 0, 10, 11))
    assert Deliver([10, 11]) in commands
    assert flight.handle(tokens(0, 0, 10)) == []


def test_a_source_overtaken_before_its_first_token_is_told_to_stop() -> None:
    """The destination may have recomputed; then the source still computes what nobody wants."""
    commands = flying(*APART).handle(tokens(1, 0, 10))
    assert commands[:2] == [Send(P, Cancel(R, epoch(0))), Closed(P)]


def test_the_bill_of_an_overtaken_source_is_still_taken() -> None:
    flight = flying(*APART, tokens(1, 0, 10))
    assert flight.handle(HandedOff(R, epoch(0), USAGE)) == [Bill(USAGE, True)]


def test_logprobs_of_known_tokens_are_dropped_with_them() -> None:
    flight = flying(*APART, tokens(0, 0, 10))
    logprobs = [TokenLogprobs(-0.1), TokenLogprobs(-0.2)]
    commands = flight.handle(Tokens(R, epoch(1), 0, [10, 11], logprobs))
    assert commands[-1] == Deliver([11], [TokenLogprobs(-0.2)])


def test_a_request_that_ends_with_its_first_token_is_cancelled_at_the_destination() -> None:
    commands = flying(*APART).handle(tokens(0, 0, 10, finish=FinishReason.STOP))
    assert Send(D, Cancel(R, epoch(1))) in commands
    assert commands[-1] == Finish(FinishReason.STOP, P)


def test_a_source_that_never_said_handed_off_is_cancelled_at_the_end() -> None:
    flight = flying(*APART, tokens(0, 0, 10), tokens(1, 0, 10, 11))
    commands = flight.handle(tokens(1, 2, 12, finish=FinishReason.LENGTH))
    assert Send(P, Cancel(R, epoch(0))) in commands


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_told_to_the_door_before_the_next_choice() -> None:
    """The door closes the worker for everybody, so this request need not avoid it."""
    flight = flying(Chosen(P, hand_off=True))
    commands = flight.handle(Refused(R, epoch(0), "full", retry_after_s=0.3))
    assert commands == [Closed(P), Busy(P, 0.3), ChooseWorker()]
    assert (flight.replays, flight.refusals) == (0, 1)


def test_who_is_turned_away_at_the_door_fails_with_the_doors_reason() -> None:
    error = Overloaded("the queue is full", 2.0)
    assert flying().handle(TurnedAway(error)) == [Fail(error)]


def test_a_choice_never_waits_in_the_flight() -> None:
    """It waits at the door, which looks again by itself."""
    flight = flying()
    assert flight.handle(Joined()) == flight.handle(Waited()) == []
    assert flight.phase is Phase.CHOOSING


def test_a_refusing_destination_keeps_the_source() -> None:
    flight = flying(*APART)
    commands = flight.handle(Refused(R, epoch(1), "full"))
    assert commands == [Closed(D), ChooseDestination(P, frozenset({D.worker}))]
    assert flight.handle(Bound(D2)) == [Send(D2, Adopt(request(), epoch(2), P, epoch(0)))]


def test_a_late_destination_is_given_the_log_the_source_was_given() -> None:
    """The source publishes KV for that log; its first token comes with the commit."""
    flight = flying(*APART, tokens(0, 0, 10), Refused(R, epoch(1), "full"))
    assert flight.handle(Bound(D2)) == [Send(D2, Adopt(request(), epoch(2), P, epoch(0)))]


BINDING = (Chosen(P, hand_off=True), Started(R, Epoch(0)))


def test_everybody_is_asked_again_after_a_growing_delay() -> None:
    flight = flying(*APART, Refused(R, epoch(1), "full"))
    (first,) = flight.handle(NoneUsable("all full"))
    assert flight.handle(Waited()) == [ChooseDestination(P)]
    (second,) = flight.handle(NoneUsable("all full"))
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert first.delay_s < second.delay_s


@pytest.mark.parametrize(
    ("events", "error"),
    [(BINDING, NoWorkers), ((*APART, Refused(R, Epoch(1), "full")), Overloaded)],
)
def test_patience_ends(events: tuple[Event, ...], error: type[Exception]) -> None:
    flight = flying(*events, wait_s_max=0.1)
    waited_s = 0.0
    while not isinstance((command := flight.handle(NoneUsable("nobody"))[-1]), Fail):
        assert isinstance(command, Wait)
        waited_s += command.delay_s
        flight.handle(Waited())
    assert isinstance(command.error, error)
    assert 0 < waited_s <= 0.1


def test_a_source_waiting_for_a_destination_is_cancelled_when_patience_ends() -> None:
    flight = flying(Chosen(P, hand_off=True), Started(R, epoch(0)), wait_s_max=0.01)
    commands = flight.handle(NoneUsable("nobody"))
    assert commands[:2] == [Send(P, Cancel(R, epoch(0))), Closed(P)]
    assert isinstance(commands[-1], Fail)


def test_workers_that_join_do_not_wear_patience_out() -> None:
    """A hundred prefill workers may come before the first decode worker does."""
    flight = flying(*BINDING, wait_s_max=1.0)
    assert isinstance(flight.handle(NoneUsable("no decode worker"))[0], Wait)
    for _ in range(100):
        assert flight.handle(Joined()) == [ChooseDestination(P)]
        assert flight.handle(NoneUsable("no decode worker")) == [], "the delay goes on"
    assert flight.handle(Waited()) == [ChooseDestination(P)]
    assert isinstance(flight.handle(NoneUsable("no decode worker"))[0], Wait)


def test_a_worker_that_joins_ends_the_wait() -> None:
    flight = flying(Chosen(P, hand_off=True), Started(R, epoch(0)), NoneUsable("nobody"))
    assert flight.handle(Joined()) == [ChooseDestination(P)]
    flight.handle(Bound(D))
    assert flight.handle(Waited()) == flight.handle(Joined()) == []


def test_an_old_timer_wakes_nobody() -> None:
    flight = flying(Chosen(D, hand_off=False))
    assert flight.handle(Waited()) == []


# ---- losses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [(), (Started(R, Epoch(0)),)])
def test_losing_the_source_before_a_destination_is_bound_replays(events: tuple[Event, ...]) -> None:
    flight = flying(Chosen(P, hand_off=True), *events)
    assert flight.handle(WorkerLost(P, "silent")) == [Closed(P), ChooseWorker()]
    assert flight.handle(Chosen(P2, hand_off=True)) == [
        Send(P2, Submit(request(), epoch(1), hand_off=True))
    ]


def test_losing_the_source_of_a_bound_destination_waits_for_the_destination() -> None:
    """It recomputes by itself, under its own epoch."""
    flight = flying(*APART, tokens(0, 0, 10))
    assert flight.handle(WorkerLost(P, "silent")) == [Closed(P)]
    assert flight.handle(tokens(1, 0, 10, 11)) == [Prefilled(D), Deliver([11])]
    assert flight.replays == 0


def test_losing_the_destination_before_commit_cancels_the_source_and_replays() -> None:
    flight = flying(*APART, tokens(0, 0, 10))
    assert flight.handle(WorkerLost(D, "silent")) == [
        Closed(D),
        Send(P, Cancel(R, epoch(0))),
        Closed(P),
        ChooseWorker(),
    ]


def test_losing_the_owner_replays_from_the_log_and_continues() -> None:
    flight = flying(*DECODING)
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), ChooseWorker()]
    assert flight.handle(Chosen(D2, hand_off=False)) == [
        Send(D2, Submit(request(), epoch(2), [10, 11]))
    ]
    assert flight.handle(tokens(1, 2, 666)) == [], "a former owner is not listened to"
    assert flight.handle(tokens(2, 2, 12)) == [Prefilled(D2), Deliver([12])]


def test_losing_another_life_of_the_worker_changes_nothing() -> None:
    former = Endpoint(D.worker, Incarnation("former"), D.role, D.host, D.port, D.host_id)
    assert flying(*DECODING).handle(WorkerLost(former, "silent")) == []


def test_losing_source_and_destination_replays_once() -> None:
    flight = flying(*APART)
    assert flight.handle(WorkerLost(P, "silent")) == [Closed(P)]
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), ChooseWorker()]
    assert flight.replays == 1


def test_a_destination_that_refuses_after_the_source_is_lost_costs_a_replay() -> None:
    flight = flying(*APART, WorkerLost(P, "silent"))
    assert flight.handle(Refused(R, epoch(1), "full", retry_after_s=0.3)) == [
        Busy(D, 0.3),
        Closed(D),
        ChooseWorker(),
    ]
    assert flight.custody.epoch == 2


def test_a_worker_that_gave_up_is_not_asked_next() -> None:
    flight = flying(Chosen(D, hand_off=False))
    commands = flight.handle(Failed(R, epoch(0), "runner died"))
    assert commands == [Closed(D), ChooseWorker(frozenset({D.worker}))]


def test_a_source_that_gives_up_after_being_overtaken_changes_nothing() -> None:
    flight = flying(*APART, tokens(0, 0, 10), tokens(1, 0, 10, 11))
    assert flight.handle(Failed(R, epoch(0), "lease expired", retryable=False)) == [Closed(P)]
    assert flight.phase is Phase.DECODING


def test_a_source_that_was_overtaken_cannot_end_the_request() -> None:
    flight = flying(*APART, tokens(0, 0, 10), tokens(1, 0, 10, 11))
    assert flight.handle(tokens(0, 1, 666, finish=FinishReason.STOP)) == []
    assert flight.handle(Refused(R, epoch(0), "late")) == []
    assert flight.phase is Phase.DECODING


def test_a_gap_in_the_log_is_answered_by_a_replay() -> None:
    flight = flying(Chosen(D, hand_off=False))
    assert flight.handle(tokens(0, 3, 99)) == [
        Send(D, Cancel(R, epoch(0))),
        Closed(D),
        ChooseWorker(frozenset({D.worker})),
    ]


def test_the_replay_budget_ends_in_request_failed_with_the_last_cause() -> None:
    flight = flying(replays_max=2)
    for _ in range(2):
        flight.handle(Chosen(D, hand_off=False))
        assert flight.handle(WorkerLost(D, "silent"))[-1] == ChooseWorker()
    flight.handle(Chosen(D, hand_off=False))
    closed, fail = flight.handle(WorkerLost(D, "silent for 3 s"))
    assert closed == Closed(D)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, RequestFailed)
    assert "silent for 3 s" in str(fail.error)


def test_a_source_that_gave_up_waiting_for_a_full_destination_ends_in_overloaded() -> None:
    flight = flying(*APART, Refused(R, epoch(1), "full"), NoneUsable("none"), replays_max=0)
    closed, fail = flight.handle(Failed(R, epoch(0), "nobody took over within the lease"))
    assert closed == Closed(P)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, Overloaded)


def test_a_log_of_full_length_is_not_submitted_again() -> None:
    """The last token came, the word of the end was lost."""
    flight = flying(Chosen(D, hand_off=False), tokens(0, 0, 10, 11), spec=request(max_tokens=2))
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), Finish(FinishReason.LENGTH)]


def test_a_log_that_ends_with_a_stop_token_is_not_submitted_again() -> None:
    spec = request(stop_token_ids=(11,))
    flight = flying(Chosen(D, hand_off=False), tokens(0, 0, 10, 11), spec=spec)
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), Finish(FinishReason.STOP)]


def test_a_stop_token_within_min_tokens_does_not_end_the_log() -> None:
    spec = request(stop_token_ids=(10,), min_tokens=2)
    flight = flying(Chosen(D, hand_off=False), tokens(0, 0, 10), spec=spec)
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), ChooseWorker()]


def test_an_empty_last_message_finishes() -> None:
    """What a worker says that was given a log ending with an end-of-sequence token."""
    flight = flying(*DECODING, WorkerLost(D, "silent"), Chosen(D2, hand_off=False))
    commands = flight.handle(tokens(2, 2, finish=FinishReason.STOP))
    assert commands == [Prefilled(D2), Closed(D2), Finish(FinishReason.STOP, D2)]


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_leaving_cancels_both_legs_under_their_own_epochs() -> None:
    assert flying(*APART).handle(ClientLeft()) == [
        Send(P, Cancel(R, epoch(0))),
        Closed(P),
        Send(D, Cancel(R, epoch(1))),
        Closed(D),
    ]


def test_leaving_before_a_worker_was_found_sends_nothing() -> None:
    assert flying().handle(ClientLeft()) == []


def test_the_deadline_cancels_and_fails() -> None:
    *cancelled, fail = flying(*DECODING).handle(DeadlinePassed())
    assert cancelled == [Send(D, Cancel(R, epoch(1))), Closed(D)]
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, DeadlineExceeded)


@pytest.mark.parametrize(
    ("events", "error"),
    [((), InvalidRequest), ((tokens(0, 0, 10),), RequestFailed)],
)
def test_what_no_worker_can_do_better_fails(
    events: tuple[Event, ...], error: type[Exception]
) -> None:
    flight = flying(Chosen(D, hand_off=False), *events)
    closed, fail = flight.handle(Failed(R, epoch(0), "too long", retryable=False))
    assert closed == Closed(D)
    assert isinstance(fail, Fail)
    assert isinstance(fail.error, error)


def test_nothing_follows_from_anything_after_the_end() -> None:
    flight = flying(*DECODING, ClientLeft())
    for event in (tokens(1, 2, 12), WorkerLost(D, "late"), Waited(), DeadlinePassed()):
        assert flight.handle(event) == []


# ---- any order -------------------------------------------------------------------------------------------------------


TRUTH = [100 + 3 * index for index in range(12)]
WORKERS = {True: (P, P2), False: (D, D2)}

Move = Callable[["World", int, int], Event | None]


class World:
    """Answers a flight's commands, keeps its ledger, and makes events of every kind, stale and repeated ones too."""

    def __init__(self, replays_max: int) -> None:
        spec = RequestSpec(R, [1, 2, 3], Sampling(max_tokens=len(TRUTH)))
        self.flight = Flight(spec, replays_max=replays_max, wait_s_max=3.0)
        self.ledger = Ledger()
        self.slot = self.ledger.slot()
        self.delivered: list[int] = []
        self.ends: list[Command] = []
        self.waiting = 0
        self.obey(self.flight.start(), 0)

    def feed(self, event: Event, luck: int) -> None:
        self.obey(self.flight.handle(event), luck)
        self.flight.validate()
        self.ledger.validate()

    def obey(self, commands: list[Command], luck: int) -> None:
        for command in commands:
            match command:
                case Deliver(values):
                    self.delivered += values
                case Prefilled(endpoint):
                    self.slot.prefilled(endpoint)
                case Closed(endpoint):
                    self.slot.strike(endpoint)
                case Wait():
                    self.waiting += 1
                case Finish() | Fail():
                    self.ends.append(command)
                case ChooseWorker(exclude):
                    if luck % 5 != 4:  # else it waits at the door
                        self.choose(exclude, luck)
                case ChooseDestination(_, exclude):
                    self.bind(exclude, luck)

    def choose(self, exclude: frozenset[WorkerId], luck: int) -> None:
        prefill = luck % 2 == 0
        free = [one for one in WORKERS[prefill] if one.worker not in exclude]
        chosen = (free or WORKERS[prefill])[luck % max(1, len(free))]
        self.charge(chosen)
        self.feed(Chosen(chosen, prefill), luck // 2)

    def bind(self, exclude: frozenset[WorkerId], luck: int) -> None:
        free = [one for one in WORKERS[False] if one.worker not in exclude]
        if not free or luck % 5 == 4:
            self.feed(NoneUsable("nobody"), luck // 2)
            return
        chosen = free[luck % len(free)]
        self.charge(chosen)
        self.feed(Bound(chosen), luck // 2)

    def charge(self, worker: Endpoint) -> None:
        self.slot.charge(worker, tokens=3, context_tokens=3, now_s=0.0)


def door_opens(world: World, a: int, b: int) -> Event:
    """Whoever waits at the door is sent, or turned away."""
    if world.flight.phase is not Phase.CHOOSING:
        return Waited()
    if b % 7 == 6:
        return TurnedAway(Overloaded("the queue is full", 1.0))
    chosen = WORKERS[a % 2 == 0][b % 2]
    world.charge(chosen)
    return Chosen(chosen, a % 2 == 0)


def some_tokens(world: World, a: int, b: int) -> Event:
    known = len(world.flight.log.tokens)
    index = max(0, known - a % 3)
    values = TRUTH[index : index + 1 + b % 3]
    done = index + len(values) == len(TRUTH)
    number = max(0, world.flight.custody.epoch + a % 4 - 1)
    return tokens(number, index, *values, finish=FinishReason.LENGTH if done else None)


def some_epoch(world: World, a: int) -> Epoch:
    return epoch(max(0, world.flight.custody.epoch + a % 3 - 1))


MOVES: tuple[Move, ...] = (
    some_tokens,
    some_tokens,
    some_tokens,
    lambda world, a, b: Started(R, some_epoch(world, a)),
    lambda world, a, b: HandedOff(R, some_epoch(world, a), USAGE),
    lambda world, a, b: Refused(R, some_epoch(world, a), "full"),
    lambda world, a, b: Failed(R, some_epoch(world, a), "broke"),
    lambda world, a, b: WorkerLost((P, P2, D, D2)[a % 4], "silent"),
    lambda world, a, b: Waited(),
    lambda world, a, b: Joined(),
    door_opens,
    lambda world, a, b: tokens(world.flight.custody.epoch, len(world.delivered) + 2, 666),
)

STEPS = st.lists(
    st.tuples(st.integers(0, len(MOVES) - 1), st.integers(0, 1000), st.integers(0, 1000)),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.integers(0, 6))
def test_no_order_of_events_loses_repeats_or_reorders_a_token(
    steps: list[tuple[int, int, int]], replays_max: int
) -> None:
    world = World(replays_max)
    for kind, a, b in steps:
        event = MOVES[kind](world, a, b)
        assert event is not None
        world.feed(event, b)
        assert world.delivered == TRUTH[: len(world.delivered)]
    world.feed(ClientLeft(), 0)
    assert world.flight.phase is Phase.ENDED
    assert world.ledger.charges == 0
    assert len(world.ends) <= 1
    if any(isinstance(end, Finish) for end in world.ends):
        assert world.delivered == TRUTH


# ---- live moves ------------------------------------------------------------------------------------------------------

ALONE = (Chosen(D, hand_off=False), tokens(0, 0, 10))
LEAVING = (*ALONE, Relocated(D2))


def test_a_running_request_is_given_to_another_worker_with_the_log_so_far() -> None:
    flight = flying(*ALONE)
    assert flight.handle(Relocated(D2)) == [
        Send(D2, Adopt(request(), epoch(1), D, epoch(0), [10], live=True))
    ]
    assert flight.handle(tokens(0, 1, 11)) == [Deliver([11])], "it runs on meanwhile"
    assert flight.handle(HandedOff(R, epoch(0), USAGE)) == [Bill(USAGE, True), Moved(D), Closed(D)]
    assert flight.handle(tokens(1, 1, 11, 12)) == [Prefilled(D2), Deliver([12])]
    assert flight.custody.owner == D2


def test_the_destination_may_be_heard_before_the_source_has_let_go() -> None:
    flight = flying(*LEAVING)
    assert flight.handle(tokens(1, 1, 11)) == [Moved(D), Prefilled(D2), Deliver([11])]
    assert flight.handle(tokens(0, 1, 11)) == [], "a former owner is not listened to"
    assert flight.handle(HandedOff(R, epoch(0), USAGE)) == [Bill(USAGE, True), Closed(D)]


def test_a_request_can_move_again_and_back() -> None:
    flight = flying(*LEAVING, tokens(1, 1, 11), HandedOff(R, epoch(0), USAGE))
    assert flight.handle(Relocated(D)) == [
        Send(D, Adopt(request(), epoch(2), D2, epoch(1), [10, 11], live=True))
    ]
    flight.handle(tokens(2, 2, 12))
    flight.validate()


def test_a_move_that_follows_at_once_does_not_wait_for_the_last_word_of_the_one_before() -> None:
    flight = flying(*LEAVING, tokens(1, 1, 11))
    assert flight.handle(Relocated(P2)) == [
        Send(D, Cancel(R, epoch(0))),
        Closed(D),
        Send(P2, Adopt(request(), epoch(2), D2, epoch(1), [10, 11], live=True)),
    ]


@pytest.mark.parametrize(
    "no",
    [
        Refused(R, Epoch(1), "full"),
        Failed(R, Epoch(1), "too long", retryable=False),
        WorkerLost(D2, "silent"),
    ],
)
def test_a_destination_that_does_not_take_it_leaves_it_where_it_runs(no: Event) -> None:
    flight = flying(*LEAVING)
    closed, moved, resume = flight.handle(no)
    assert (closed, resume) == (Closed(D2), Send(D, Resume(R, epoch(0), epoch(1))))
    assert isinstance(moved, Moved)
    assert moved.reason
    assert flight.handle(tokens(1, 1, 666)) == [], "it is out"
    assert flight.handle(tokens(0, 1, 11)) == [Deliver([11])]
    assert flight.replays == 0


def test_a_source_that_does_not_know_how_it_ended_is_told_to_go_on() -> None:
    flight = flying(*LEAVING)
    assert flight.handle(Stalled(R, epoch(0), "silent")) == [
        Send(D2, Cancel(R, epoch(1))),
        Closed(D2),
        Moved(D, "silent"),
        Send(D, Resume(R, epoch(0), epoch(1))),
    ]
    assert flight.handle(tokens(1, 1, 666)) == [], "it had taken over, but too late"


def test_a_source_that_does_not_know_that_it_has_lost_it_is_told_to_forget() -> None:
    flight = flying(*LEAVING, tokens(1, 1, 11))
    assert flight.handle(Stalled(R, epoch(0), "silent")) == [
        Send(D, Cancel(R, epoch(0))),
        Closed(D),
    ]


def test_losing_the_source_of_a_live_move_leaves_it_to_the_destination() -> None:
    flight = flying(*LEAVING)
    assert flight.handle(WorkerLost(D, "silent")) == [Closed(D), Moved(D)]
    assert flight.handle(Refused(R, epoch(1), "cut"))[-1] == ChooseWorker(), "which has not all"


def test_a_request_given_away_to_somebody_who_was_given_up_is_replayed() -> None:
    flight = flying(*LEAVING, Stalled(R, epoch(0), "silent"))
    assert flight.handle(HandedOff(R, epoch(0), USAGE)) == [Closed(D), ChooseWorker()]
    assert flight.handle(Chosen(D, hand_off=False)) == [Send(D, Submit(request(), epoch(2), [10]))]


def test_a_source_that_has_finished_ends_the_move() -> None:
    flight = flying(*LEAVING)
    commands = flight.handle(tokens(0, 1, 11, finish=FinishReason.STOP))
    assert Send(D2, Cancel(R, epoch(1))) in commands
    assert commands[-1] == Finish(FinishReason.STOP, D)


def test_a_request_in_a_queue_begins_elsewhere_without_a_replay() -> None:
    flight = flying(Chosen(P, hand_off=True))
    assert flight.handle(Unseated()) == [Send(P, Cancel(R, epoch(0))), Closed(P), ChooseWorker()]
    assert flight.handle(Chosen(P2, hand_off=True)) == [
        Send(P2, Submit(request(), epoch(1), hand_off=True))
    ]
    assert flight.handle(Started(R, epoch(0))) == [], "the first one had begun after all"
    assert flight.replays == 0


def test_what_has_begun_is_not_unseated() -> None:
    flight = flying(*APART)
    assert flight.handle(Unseated()) == []
