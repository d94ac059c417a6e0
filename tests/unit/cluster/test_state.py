"""Stories of a cluster's life, told in events and commands."""

from hypothesis import given
from hypothesis import strategies as st

from tercet.cluster.commands import DrainWorker, KillWorker, Publish, StartWorker, StopWorker
from tercet.cluster.events import (
    Desired,
    Drain,
    Drained,
    Found,
    Placed,
    StartFailed,
    Stopped,
    Tick,
    VersionSeen,
    WorkerLost,
    WorkerUp,
)
from tercet.cluster.refusals import why_not_drain, why_not_scale
from tercet.cluster.seat import Phase, seat_role
from tercet.cluster.state import ClusterState
from tercet.config import ControlConfig, PoolConfig, Pools
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import Endpoint, Membership

P0, D0, D1 = WorkerId("prefill-0"), WorkerId("decode-0"), WorkerId("decode-1")


def life(n: int) -> Incarnation:
    return Incarnation(f"life-{n}")


def endpoint(worker: WorkerId, incarnation: Incarnation) -> Endpoint:
    return Endpoint(worker, incarnation, seat_role(worker), "127.0.0.2", 7000, "host")


def bring_up(state: ClusterState, worker: WorkerId, n: int, now_s: float) -> None:
    state.handle(Placed(worker, life(n)), now_s)
    state.handle(WorkerUp(endpoint(worker, life(n))), now_s)


def test_a_wish_starts_every_seat_and_publishes_an_empty_list(state):
    assert state.handle(Desired(prefill=1, decode=2), 0.0) == [
        Publish(Membership(101, ())),
        StartWorker(P0, Role.PREFILL, life(0)),
        StartWorker(D0, Role.DECODE, life(1)),
        StartWorker(D1, Role.DECODE, life(2)),
    ]
    assert state.handle(Desired(prefill=1, decode=2), 1.0) == []


def test_a_worker_is_published_once_it_is_up_and_not_before(state):
    state.handle(Desired(0, 1), 0.0)
    assert state.handle(Placed(D0, life(0)), 1.0) == []
    up = endpoint(D0, life(0))
    assert state.handle(WorkerUp(up), 2.0) == [Publish(Membership(102, (up,)))]


def test_a_lost_worker_leaves_the_list_and_is_restarted_at_once_with_a_new_incarnation(state):
    state.handle(Desired(0, 1), 0.0)
    bring_up(state, D0, 0, 1.0)
    assert state.handle(WorkerLost(D0, life(0), "killed"), 2.0) == [
        Publish(Membership(103, ())),
        KillWorker(D0, life(0)),
        StartWorker(D0, Role.DECODE, life(1)),
    ]
    assert state.seats[D0].restarts == 1


def test_failures_in_a_row_wait_twice_as_long_each_time_up_to_the_maximum(state):
    state.handle(Desired(0, 1), 0.0)
    now_s, waits = 0.0, []
    for n in range(7):
        state.handle(StartFailed(D0, life(n), "no such checkpoint"), now_s)
        waits.append(0.0 if state.wake_at_s is None else state.wake_at_s - now_s)
        now_s += waits[-1]
        state.handle(Tick(), now_s)
    assert waits == [0.0, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert state.seats[D0].crash_looping
    assert state.seats[D0].reason == "no such checkpoint"


def test_a_tick_before_the_time_starts_nothing(state):
    state.handle(Desired(0, 1), 0.0)
    state.handle(StartFailed(D0, life(0), "x"), 0.0)
    state.handle(StartFailed(D0, life(1), "x"), 0.0)
    assert state.handle(Tick(), 0.49) == []
    assert state.handle(Tick(), 0.5) == [StartWorker(D0, Role.DECODE, life(2))]


def test_a_worker_that_was_up_long_enough_begins_with_a_clean_record(state):
    state.handle(Desired(0, 1), 0.0)
    state.handle(StartFailed(D0, life(0), "x"), 0.0)
    bring_up(state, D0, 1, 1.0)
    state.handle(WorkerLost(D0, life(1), "killed"), 5.0)
    assert state.seats[D0].failures == 1
    bring_up(state, D0, 2, 6.0)
    state.handle(WorkerLost(D0, life(2), "killed"), 9.9)
    assert state.seats[D0].failures == 2


def test_news_of_a_former_life_changes_nothing(state):
    state.handle(Desired(0, 1), 0.0)
    bring_up(state, D0, 0, 1.0)
    state.handle(WorkerLost(D0, life(0), "killed"), 2.0)
    before = state.membership
    for event in (
        WorkerLost(D0, life(0), "again"),
        StartFailed(D0, life(0), "late"),
        Placed(D0, life(0)),
        WorkerUp(endpoint(D0, life(0))),
        Stopped(D0, life(0)),
    ):
        assert state.handle(event, 3.0) == []
    assert state.membership == before
    assert state.seats[D0].phase is Phase.PENDING


def test_what_is_not_wanted_is_unpublished_then_drained_then_stopped(state):
    state.handle(Desired(0, 2), 0.0)
    bring_up(state, D0, 0, 1.0)
    bring_up(state, D1, 1, 1.0)
    assert state.handle(Desired(0, 1), 2.0) == [
        Publish(Membership(104, (endpoint(D0, life(0)),))),
        DrainWorker(D1, life(1)),
    ]
    assert state.handle(Desired(0, 1), 2.5) == []
    assert state.handle(Drained(D1, life(1)), 3.0) == [StopWorker(D1, life(1), graceful=True)]
    assert state.handle(Stopped(D1, life(1)), 3.5) == []
    assert list(state.seats) == [D0]


def test_without_anybody_to_take_over_workers_are_stopped_with_what_they_have(state):
    state.handle(Desired(0, 2), 0.0)
    bring_up(state, D0, 0, 1.0)
    bring_up(state, D1, 1, 1.0)
    state.handle(Drain(D1, life(1)), 1.5)
    assert state.handle(Desired(0, 0, at_once=True), 2.0) == [
        Publish(Membership(105, ())),
        StopWorker(D0, life(0), graceful=True),
        StopWorker(D1, life(1), graceful=True),
    ]
    assert state.handle(Drained(D1, life(1)), 2.5) == [], "it is being stopped already"


def test_a_drained_worker_that_is_wanted_begins_another_life(state):
    state.handle(Desired(0, 1), 0.0)
    bring_up(state, D0, 0, 1.0)
    assert state.handle(Drain(D0, life(0)), 2.0) == [
        Publish(Membership(103, ())),
        DrainWorker(D0, life(0)),
    ]
    assert state.handle(Drain(D0, life(0)), 2.1) == []
    assert state.handle(Drained(D0, life(0), "3 running"), 3.0) == [
        StopWorker(D0, life(0), graceful=True)
    ]
    assert "stopped with 3 running" in state.story[-1]
    assert state.handle(Stopped(D0, life(0)), 4.0) == [StartWorker(D0, Role.DECODE, life(1))]


def test_a_worker_that_is_lost_while_it_drains_is_replaced_at_once(state):
    state.handle(Desired(0, 1), 0.0)
    bring_up(state, D0, 0, 1.0)
    state.handle(Drain(D0, life(0)), 2.0)
    assert state.handle(WorkerLost(D0, life(0), "killed"), 3.0) == [
        KillWorker(D0, life(0)),
        StartWorker(D0, Role.DECODE, life(1)),
    ]
    assert state.handle(Drained(D0, life(0)), 3.1) == []


def test_only_what_is_up_can_be_drained_and_the_last_decode_worker_cannot(state):
    state.handle(Desired(1, 2), 0.0)
    bring_up(state, P0, 0, 1.0)
    bring_up(state, D0, 1, 1.0)
    assert why_not_drain(state, WorkerId("decode-9")).startswith("there is no such worker")
    assert "it is pending" in why_not_drain(state, D1)
    assert "the only decode worker" in why_not_drain(state, D0)
    assert why_not_drain(state, P0) == ""
    bring_up(state, D1, 2, 2.0)
    assert why_not_drain(state, D0) == ""
    state.handle(Drain(D1, life(2)), 3.0)
    assert "the only decode worker" in why_not_drain(state, D0)


def test_a_cluster_keeps_a_decode_worker_and_gets_no_pool_that_its_file_has_not(state):
    apart = Pools()
    together = Pools(prefill=PoolConfig(replicas=0))
    assert why_not_scale(state, apart, 0, 1) == why_not_scale(state, apart, 5, 9) == ""
    assert why_not_scale(state, together, 0, 3) == ""
    assert "no prefill pool" in why_not_scale(state, together, 1, 3)
    assert "tercet down" in why_not_scale(state, apart, 1, 0)
    assert why_not_scale(state, apart, -1, 1)


def test_a_pool_is_not_made_smaller_at_the_cost_of_the_only_worker_that_is_up(state):
    state.handle(Desired(1, 2), 0.0)
    bring_up(state, D1, 2, 1.0)
    assert "none of the decode workers that would stay is up" in why_not_scale(state, Pools(), 1, 1)
    assert why_not_scale(state, Pools(), 1, 2) == ""
    bring_up(state, D0, 1, 2.0)
    assert why_not_scale(state, Pools(), 1, 1) == ""


def test_a_seat_wanted_again_while_it_stops_is_filled_when_it_is_empty(state):
    state.handle(Desired(0, 1), 0.0)
    bring_up(state, D0, 0, 1.0)
    state.handle(Desired(0, 0), 2.0)
    assert state.handle(Desired(0, 1), 2.5) == []
    state.handle(Drained(D0, life(0)), 2.6)
    assert state.handle(WorkerLost(D0, life(0), "ended"), 3.0) == []
    assert state.handle(Stopped(D0, life(0)), 3.0) == [StartWorker(D0, Role.DECODE, life(1))]


def test_a_worker_that_never_came_up_is_stopped_without_asking(state):
    state.handle(Desired(0, 1), 0.0)
    assert state.handle(Desired(0, 0), 1.0) == [StopWorker(D0, life(0), graceful=False)]


def test_a_seat_waiting_to_be_retried_is_given_up_when_it_is_not_wanted(state):
    state.handle(Desired(0, 1), 0.0)
    state.handle(StartFailed(D0, life(0), "x"), 0.0)
    state.handle(StartFailed(D0, life(1), "x"), 0.0)
    assert state.handle(Desired(0, 0), 0.1) == []
    assert state.seats == {}
    assert state.wake_at_s is None


def test_a_new_controller_adopts_the_living_and_publishes_nothing_until_it_knows_them_all(state):
    p, d = endpoint(P0, Incarnation("old-p")), endpoint(D0, Incarnation("old-d"))
    assert state.handle(Found(P0, p.incarnation, p), 0.0) == []
    assert state.handle(Found(D0, d.incarnation, d), 0.0) == []
    assert state.handle(Found(D1, Incarnation("old-d1")), 0.0) == []
    assert state.handle(Desired(1, 2), 0.1) == [Publish(Membership(101, (p, d)))]
    late = endpoint(D1, Incarnation("old-d1"))
    assert state.handle(WorkerUp(late), 1.0) == [Publish(Membership(102, (p, d, late)))]


def test_an_adopted_worker_that_nobody_wants_is_drained(state):
    state.handle(Found(D1, Incarnation("old"), endpoint(D1, Incarnation("old"))), 0.0)
    assert state.handle(Desired(0, 1), 0.0) == [
        Publish(Membership(101, ())),
        DrainWorker(D1, Incarnation("old")),
        StartWorker(D0, Role.DECODE, life(0)),
    ]


def test_of_two_lives_of_one_seat_the_one_that_listens_is_kept(state):
    young = endpoint(D0, Incarnation("young"))
    state.handle(Found(D0, Incarnation("old")), 0.0)
    assert state.handle(Found(D0, young.incarnation, young), 0.0) == [
        KillWorker(D0, Incarnation("old"))
    ]
    assert state.handle(Found(D0, Incarnation("older")), 0.0) == [
        KillWorker(D0, Incarnation("older"))
    ]
    assert state.seats[D0].endpoint == young


def test_a_version_seen_by_a_front_door_is_surpassed(state):
    state.handle(Desired(0, 0), 0.0)
    assert state.handle(VersionSeen(101), 1.0) == []
    assert state.handle(VersionSeen(7), 1.0) == []
    assert state.handle(VersionSeen(5000), 1.0) == [Publish(Membership(5001, ()))]


MOVES = st.tuples(
    st.sampled_from(["up", "lost", "failed", "drain", "drained", "stopped", "tick"]),
    st.integers(0, 2),
)


@given(st.lists(st.one_of(MOVES, st.tuples(st.just("want"), st.integers(0, 3))), max_size=60))
def test_whatever_happens_the_wish_is_met_when_peace_returns(moves):
    lives = iter(range(10_000))
    state = ClusterState(ControlConfig(), 0, lambda: life(next(lives)))
    seats, now_s, version = [P0, D0, D1], 0.0, 0
    state.handle(Desired(1, 2), now_s)
    for what, n in moves:
        now_s += 0.3
        seat = state.seats.get(seats[n % 3])
        incarnation = seat.incarnation if seat else life(0)
        match what:
            case "want":
                state.handle(Desired(n % 2, n), now_s)
            case "up":
                state.handle(Placed(seats[n], incarnation), now_s)
                state.handle(WorkerUp(endpoint(seats[n], incarnation)), now_s)
            case "lost":
                state.handle(WorkerLost(seats[n], incarnation, "x"), now_s)
            case "failed":
                state.handle(StartFailed(seats[n], incarnation, "x"), now_s)
            case "drain":
                state.handle(Drain(seats[n], incarnation), now_s)
            case "drained":
                state.handle(Drained(seats[n], incarnation), now_s)
            case "stopped":
                state.handle(Stopped(seats[n], incarnation), now_s)
            case "tick":
                state.handle(Tick(), now_s)
        state.validate()
        assert state.membership is not None
        assert state.membership.version >= version
        version = state.membership.version
    state.handle(Desired(1, 2), now_s)
    for _ in range(2):  # once for those that still stop, once for those that follow them
        for seat in list(state.seats.values()):
            state.handle(Drained(seat.worker, seat.incarnation), now_s)
            if seat.phase is Phase.STOPPING:
                state.handle(Stopped(seat.worker, seat.incarnation), now_s)
        now_s += 60.0
        state.handle(Tick(), now_s)
        for seat in list(state.seats.values()):
            bring = endpoint(seat.worker, seat.incarnation)
            state.handle(Placed(seat.worker, seat.incarnation), now_s)
            state.handle(WorkerUp(bring), now_s)
        state.validate()
    assert [e.worker for e in state.membership.workers] == [P0, D0, D1]
