"""Figures that can be worked out by hand: workers of 1,000 tokens a second, blocks of 100 tokens."""

import pytest
from msgspec import structs

from tercet.config import EngineConfig, FrontDoorConfig
from tercet.errors import ConfigError, OptionError
from tercet.ids import WorkerId
from tercet.simulator import (
    EngineModel,
    Failure,
    IdealModel,
    Knowledge,
    SimulationOptions,
    simulate,
)
from tercet.simulator.traces import Arrival, ClosedSession, ClosedTrace, Spawn, Trace, Turn


def options(**changes):
    return SimulationOptions(model=IdealModel(tokens_per_s=1000.0), **changes)


def test_the_figures_of_three_requests_are_what_they_are_by_hand(cluster, open_trace):
    # 0.0 s: a takes 1 s. 0.5 s: b waits for it 0.5 s and takes 0.5 s. 3.0 s: c is a again, and all cached but one token.
    trace = open_trace((0.0, 1000, 1), (0.5, 500, 2), (3.0, 1000, 1))
    results = simulate(cluster(1, ttft_ms=999), trace, options())
    assert (results.requests, results.failed, results.rejected) == (3, 0, 0)
    assert (results.ttft_s.p50, results.ttft_s.p90, results.ttft_s.p99) == (1.0, 1.0, 1.0)
    assert results.ttft_curve_s[0] == 0.001
    assert results.hit_rate == pytest.approx(1000 / 2500)
    assert results.slo_attainment == pytest.approx(1 / 3, abs=1e-6)
    assert results.duration_s == 3.001
    assert results.gpu_hours == pytest.approx(3.001 / 3600, abs=1e-6)
    assert results.workers[0].busy_share == pytest.approx(1.501 / 3.001, abs=1e-6)
    assert results.workers[0].requests == 3
    assert results.itl_s.p50 is results.tpot_s.p50 is None, "no request had a second token"


def test_load_cv_is_the_spread_of_busy_times(cluster, open_trace):
    results = simulate(cluster(2), open_trace((0.0, 300), (1.0, 100)), options())
    assert [worker.busy_share for worker in results.workers] == [
        pytest.approx(0.3 / 1.1, abs=1e-6),
        pytest.approx(0.1 / 1.1, abs=1e-6),
    ]
    assert results.load_cv == pytest.approx(0.1 / 0.2)


def test_a_slow_worker_takes_as_much_longer_as_it_is_slower(cluster, open_trace):
    slow = options(speeds={WorkerId("decode-0"): 0.25})
    results = simulate(cluster(1), open_trace((0.0, 100)), slow)
    assert results.ttft_s.p50 == 0.4


def test_requests_that_are_turned_away_count_as_misses(cluster, open_trace):
    config = cluster(1, start_within_s=0.1)
    config = structs.replace(config, front_door=FrontDoorConfig(queue_max=1))
    results = simulate(config, open_trace(*[(0.001 * i, 500, i) for i in range(4)]), options())
    assert (results.requests, results.rejected, results.failed) == (4, 2, 0)
    assert results.slo_attainment == 0.5
    assert results.queued_max <= 1


def test_what_arrives_during_the_warm_up_is_served_but_not_counted(cluster, open_trace):
    trace = open_trace((0.0, 900), (1.0, 100), (2.0, 100))
    results = simulate(cluster(1), trace, options(warm_up_share=0.4))
    assert results.requests == 2
    assert results.ttft_s.p99 == pytest.approx(0.1)
    assert results.workers[0].requests == 3


def test_a_turn_is_sent_when_the_one_before_has_ended_and_its_think_time_is_over(cluster):
    def turn(think_s, tokens):
        return Turn(think_s, tokens, 1, tuple(range(tokens // 100)))

    parent = ClosedSession("p", 1.0, (turn(0.5, 1000), turn(2.0, 2000)))
    child = ClosedSession("p/1", 0.0, (turn(0.0, 100),), Spawn("p", 0, 0.25))
    results = simulate(cluster(1), ClosedTrace("closed", 100, (parent, child)), options())
    # p: sent at 1.5, ends at 2.5; child: sent at 2.75, cached; p again: sent at 4.5, computes 1,000 of 2,000 tokens.
    assert results.requests == 3
    assert results.duration_s == pytest.approx(5.5)
    assert results.hit_rate == pytest.approx(1100 / 3100, abs=1e-6)


def test_a_request_whose_worker_dies_begins_again_elsewhere(cluster, open_trace):
    dies = options(failures=(Failure(WorkerId("decode-0"), 0.5),))
    results = simulate(cluster(2), open_trace((0.0, 1000)), dies)
    assert (results.requests, results.failed, results.replays) == (1, 0, 1)
    assert results.ttft_s.p50 == 1.5
    assert [worker.busy_share for worker in results.workers] == [
        pytest.approx(0.5 / 1.5, abs=1e-6),
        pytest.approx(1.0 / 1.5, abs=1e-6),
    ]


def test_a_worker_that_comes_back_has_lost_its_cache(cluster, open_trace):
    trace = open_trace((0.0, 500, 1), (2.0, 500, 1))
    outage = options(failures=(Failure(WorkerId("decode-0"), 1.0, 0.5),))
    assert simulate(cluster(1), trace, options()).hit_rate == 0.5
    assert simulate(cluster(1), trace, outage).hit_rate == 0.0


def test_requests_wait_at_the_door_for_a_worker_that_is_down(cluster, open_trace):
    outage = options(failures=(Failure(WorkerId("decode-0"), 0.0, 5.0),))
    results = simulate(cluster(1), open_trace((1.0, 100)), outage)
    assert results.ttft_s.p50 == pytest.approx(4.1)


def test_messages_take_as_long_as_the_network(cluster, open_trace):
    results = simulate(cluster(1), open_trace((0.0, 100)), options(network_s=0.2))
    assert results.ttft_s.p50 == pytest.approx(0.5)


def test_old_reports_are_worse_than_exact_ones(cluster, open_trace):
    burst = open_trace(*[(0.02 * i, 100 + 97 * i % 400, i) for i in range(200)])
    config = cluster(8, policy="least_pending")
    exact = simulate(config, burst, options(front_doors=4))
    old = simulate(config, burst, options(front_doors=4, report_age_s=2.0))
    assert exact.ttft_s.p99 < old.ttft_s.p99


def test_reports_that_nobody_would_hear_cost_nothing_and_change_nothing(cluster, open_trace):
    config = cluster(2, policy="least_pending")
    told = options(report_age_s=0.5)

    def figures(pause_s):
        rest = ((pause_s + 0.03 * i, 100 + 37 * i) for i in range(20))
        trace = open_trace(*((0.03 * i, 100 + 37 * i) for i in range(20)), *rest)
        return simulate(config, trace, told)

    short, long = figures(100.0), figures(1e7)
    assert long.ttft_s == short.ttft_s
    assert long.pace.wall_s < 20, "twenty million reports were written"


@pytest.mark.parametrize("knowledge", list(Knowledge))
def test_every_kind_of_knowledge_of_caches_serves_everybody(cluster, open_trace, knowledge):
    trace = open_trace(*[(0.1 * i, 300, i % 7) for i in range(60)])
    told = options(knowledge=knowledge, report_age_s=0.5, front_doors=2)
    results = simulate(cluster(3, policy="min_ttft"), trace, told)
    assert (results.requests, results.rejected) == (60, 0)
    assert results.hit_rate > 0.3


def test_caches_hold_as_many_tokens_in_the_blocks_of_the_trace(cluster, open_trace):
    config = structs.replace(cluster(1), engine=EngineConfig(block_tokens=50, kv_blocks=10))
    setup = simulate(config, open_trace((0.0, 100)), options()).setup
    assert (setup.block_tokens, setup.cache_tokens) == (100, 500)


def test_ideal_machines_hand_nothing_off_so_the_prefill_pool_is_simulated_alone(
    cluster, open_trace
):
    setup = simulate(cluster(5, prefill=2), open_trace((0.0, 100)), options()).setup
    assert (setup.prefill_workers, setup.decode_workers) == (0, 2)


def test_a_worker_that_is_not_there_is_named(cluster, open_trace):
    with pytest.raises(OptionError, match=r"--fail: there is no worker 'decode-7' .*decode-0"):
        simulate(
            cluster(2),
            open_trace((0.0, 1)),
            options(failures=(Failure(WorkerId("decode-7"), 1.0),)),
        )


def test_a_policy_that_is_not_there_is_named(cluster, open_trace):
    with pytest.raises(ConfigError, match="unknown policy 'dualmop'"):
        simulate(cluster(2, policy="dualmop"), open_trace((0.0, 1)), options())


def test_whoever_watches_is_told_how_far_it_is(cluster, open_trace):
    seen = []
    trace = open_trace(*[(float(i), 10) for i in range(600)])
    simulate(cluster(1), trace, options(), lambda ended, now_s: seen.append((ended, now_s)))
    assert [ended for ended, _ in seen] == [256, 512]


def test_an_engine_takes_a_step_for_each_token_after_the_first(cluster, open_trace):
    model = EngineModel(prefill=(0.0, 1e-3, 0.0), decode=(0.01, 0.0, 0.0))
    trace = Trace("made", 100, (Arrival(0.0, 300, 5, (1, 2, 3)),))
    results = simulate(cluster(1), trace, SimulationOptions(model=model))
    assert results.ttft_s.p50 == pytest.approx(0.3)
    assert results.tpot_s.p50 == pytest.approx(0.01)
    for gap_s in (results.itl_s.p50, results.itl_s.p99, results.pause_s.p50):
        assert gap_s == pytest.approx(0.01, rel=0.02)
    assert results.duration_s == pytest.approx(0.34)
    assert results.workers[0].busy_share == 1.0
    assert results.output_tokens_per_s == pytest.approx(5 / 0.34)


def test_engines_hand_off_and_both_have_had_the_request(cluster, open_trace):
    results = simulate(cluster(1, prefill=1), open_trace((0.0, 2000)), SimulationOptions())
    assert [worker.worker for worker in results.workers] == ["prefill-0", "decode-0"]
    two_tokens = Trace("made", 100, (Arrival(0.0, 2000, 2, tuple(range(20))),))
    results = simulate(cluster(1, prefill=1), two_tokens, SimulationOptions())
    assert [worker.requests for worker in results.workers] == [1, 1]


@pytest.mark.parametrize("worker", ["prefill-0", "decode-0"])
def test_engines_that_die_in_the_middle_of_everything_lose_nothing(cluster, worker):
    arrivals = tuple(
        Arrival(0.01 * i, 1000, 50, tuple(range(10 * i, 10 * i + 10))) for i in range(60)
    )
    outage = SimulationOptions(failures=(Failure(WorkerId(worker), 0.5, 0.3),), network_s=1e-3)
    results = simulate(cluster(2, prefill=2), Trace("made", 100, arrivals), outage)
    assert (results.requests, results.failed, results.rejected) == (60, 0, 0)
    assert results.replays > 0


def test_the_next_turn_finds_the_answer_in_the_cache_where_the_trace_knows_it(cluster):
    def session(*turns):
        return ClosedTrace("closed", 100, (ClosedSession("s", 0.0, turns),))

    first = Turn(0.0, 500, 201, tuple(range(5)))
    goes_on = Turn(1.0, 800, 2, tuple(range(8)))
    another = Turn(1.0, 800, 2, (*range(4), *range(100, 104)))
    hits = [
        simulate(cluster(1), session(first, turn), SimulationOptions()).hit_rate * 1300
        for turn in (goes_on, another)
    ]
    assert hits == [pytest.approx(700, abs=1), pytest.approx(400, abs=1)]
