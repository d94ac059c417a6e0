"""Machines that leap are held against the same machines step by step, which is the production engine's own loop."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from tercet.ids import RequestId
from tercet.latency import LatencyModel
from tercet.router.record import Outcome, RequestRecord
from tercet.simulator.engine_model import EngineModel
from tercet.simulator.stretches import BIN_RATIO
from tercet.simulator.traces import Arrival
from tercet.wire import HandedOff, Refused, Started, Tokens

Workload = Callable[..., list[Arrival]]

NETWORK_S = 0.0007
MODEL = EngineModel(
    prefill=(0.004, 0.0001, 1e-8),
    decode=(0.005, 0.0003, 1e-6),
    kv_bytes_per_token=2**16,
    bandwidth_bytes_per_s=1e9,
    latency_s=0.0001,
)

SITES = {
    "aggregated": {"prefill": 0, "decode": 2},
    "apart": {"prefill": 1, "decode": 2},
    "short of blocks": {"prefill": 0, "decode": 1, "kv_blocks": 60},
    "short of blocks, apart": {"prefill": 1, "decode": 1, "kv_blocks": 60},
    "small steps": {"prefill": 0, "decode": 1, "step_tokens_max": 24},
    "few places": {"prefill": 1, "decode": 1, "running_max": 3, "waiting_max": 4},
    "impatient": {"prefill": 0, "decode": 1, "refusing_after_s": 0.02, "step_tokens_max": 48},
    "unequal": {"prefill": 1, "decode": 2, "speeds": {"prefill-0": 2.0, "decode-1": 0.4}},
}


def facts(record: RequestRecord) -> tuple[object, ...]:
    """All that must not depend on how a machine is computed, but for times."""
    return (
        record.request, record.outcome, record.prompt_tokens, record.cached_tokens,
        record.output_tokens, record.pulled_tokens, record.preemptions, record.refusals,
        record.replays, record.recomputed, record.prefill_worker, record.decode_worker,
    )  # fmt: skip


def events(town: object) -> list[tuple[object, ...]]:
    """What machines said, in order, except that tokens came between the first and the last one."""
    first: set[RequestId] = set()
    said = []
    for _, worker, word in town.words:
        match word:
            case Tokens(finish=None) if word.request in first:
                continue
            case Tokens(finish=None):
                first.add(word.request)
                said.append((worker, "first", word.request, word.epoch))
            case Tokens():
                said.append((worker, "last", word.request, word.epoch, word.usage.cached_tokens))
            case Started() | HandedOff() | Refused():
                said.append((worker, type(word).__name__, word.request, word.epoch))
    return said


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("site", SITES)
def test_leaps_change_nothing(build: object, workload: Workload, site: str, seed: int) -> None:
    arrivals = workload(seed, requests=80, rate=25.0)
    leaping, stepping = (build(leaps=leaps, seed=seed, **SITES[site]) for leaps in (True, False))
    for town in (leaping, stepping):
        town.replay(arrivals)
    assert events(leaping) == events(stepping)
    for ours, theirs in zip(leaping.records, stepping.records, strict=True):
        assert facts(ours) == facts(theirs)
        for figure in ("ttft_ms", "total_ms", "queue_ms", "itl_ms"):
            expected = getattr(theirs, figure)
            assert getattr(ours, figure) == (expected and pytest.approx(expected, abs=1e-5))
    assert all(record.outcome is Outcome.LENGTH for record in leaping.records)
    messages = [sum(isinstance(word, Tokens) for *_, word in t.words) for t in (leaping, stepping)]
    assert messages[0] * 5 < messages[1]


def test_the_sites_are_what_they_are_called(build: object, workload: Workload) -> None:
    totals = Counter()
    for site, options in SITES.items():
        town = build(**options)
        for record in town.replay(workload(0, requests=80, rate=25.0)):
            totals[site, "preempted"] += record.preemptions
            totals[site, "refused"] += record.refusals
            totals[site, "pulled"] += record.pulled_tokens
            totals[site, "cached"] += record.cached_tokens
    assert totals["short of blocks", "preempted"] > 2
    assert totals["short of blocks, apart", "refused"] > 5
    assert totals["impatient", "refused"] > 5
    assert totals["few places", "refused"] > 5
    assert totals["apart", "pulled"] > 1000 < totals["aggregated", "cached"]
    assert totals["aggregated", "pulled"] == 0


@pytest.mark.parametrize("site", ["aggregated", "apart", "short of blocks", "unequal"])
def test_gaps_between_tokens_are_those_of_single_steps(
    build: object, workload: Workload, site: str
) -> None:
    arrivals = workload(5, requests=60, rate=25.0)
    leaping, stepping = (build(leaps=leaps, **SITES[site]) for leaps in (True, False))
    for town in (leaping, stepping):
        town.replay(arrivals)
    gaps = leaping.gaps()
    for request, times in stepping.token_times.items():
        # Where a request is handed off, its first token is said twice.
        times = times[:1] + times[2:] if leaping.handed_off(request) else times
        exact = sorted(after - before for before, after in pairwise(times))
        assert gaps[request].total == len(exact)
        for share in (0.5, 0.99) if exact else ():
            expected = exact[math.ceil(share * len(exact)) - 1]
            assert gaps[request].quantile_s(share) == pytest.approx(expected, rel=BIN_RATIO - 1)


def test_the_same_seed_gives_the_same_times_and_another_one_others(
    build: object, workload: Workload
) -> None:
    noisy = replace(MODEL, noise=0.1)
    arrivals = workload(1, requests=60, rate=20.0)
    first, again, other = (build(1, 2, model=noisy, seed=seed) for seed in (3, 3, 4))
    for town in (first, again, other):
        town.replay(arrivals)
    assert first.records == again.records
    assert first.words == again.words
    assert first.stretches == again.stretches
    assert first.records != other.records


def test_a_slow_worker_takes_longer_and_says_so(build: object) -> None:
    arrival = Arrival(0.0, 200, 50, tuple(range(3)))
    fast, slow = build(0, 1), build(0, 1, speeds={"decode-0": 0.5})
    assert [town.replay([arrival])[0].outcome for town in (fast, slow)] == [Outcome.LENGTH] * 2
    network_ms = 2 * NETWORK_S * 1e3
    quick_ms, slow_ms = (town.records[0].total_ms - network_ms for town in (fast, slow))
    assert slow_ms == pytest.approx(2 * quick_ms)
    reports = [town.machines["decode-0"].report() for town in (fast, slow)]
    assert reports[1].prefill_coefficients == pytest.approx(
        [2 * c for c in reports[0].prefill_coefficients]
    )


def test_times_are_those_of_the_latency_model(build: object) -> None:
    town = build(0, 1)
    (record,) = town.replay([Arrival(0.0, 200, 4, tuple(range(3)))])
    model = LatencyModel.from_coefficients(MODEL.prefill, MODEL.decode)
    prefill_s = model.predict_prefill_s(200, 200)
    decode_s = sum(model.predict_decode_s(1, context) for context in (201, 202, 203))
    assert record.ttft_ms == pytest.approx(1e3 * (prefill_s + 2 * NETWORK_S))
    assert record.total_ms == pytest.approx(1e3 * (prefill_s + decode_s + 2 * NETWORK_S))


def test_what_is_pulled_takes_its_time_on_the_network(build: object) -> None:
    arrival = Arrival(0.0, 240, 4, tuple(range(30)))
    quick, slow = (
        build(1, 1, model=replace(MODEL, bandwidth_bytes_per_s=rate)) for rate in (1e9, 1e7)
    )
    for town in (quick, slow):
        (record,) = town.replay([arrival])
        assert (record.pulled_tokens, record.recomputed) == (240, False)
        assert record.pulled_bytes == 240 * MODEL.kv_bytes_per_token
    more_ms = slow.records[0].total_ms - quick.records[0].total_ms
    assert more_ms == pytest.approx(240 * MODEL.kv_bytes_per_token / 1e7 * 1e3, rel=0.02)


def test_a_request_that_outgrows_its_worker_fails_with_all_its_tokens_said(build: object) -> None:
    arrivals = [Arrival(0.0, 100, 300, ()), Arrival(0.1, 20, 30, ())]
    for leaps in (True, False):
        failed, served = build(0, 1, kv_blocks=20, leaps=leaps).replay(arrivals)
        assert (served.outcome, served.output_tokens) == (Outcome.LENGTH, 30)
        assert (failed.outcome, failed.output_tokens) == (Outcome.FAILED, 61)


def test_the_output_is_cached_under_the_next_turns_names(build: object) -> None:
    first = Arrival(0.0, 80, 41, tuple(range(10)))
    second = Arrival(9.0, 160, 4, (*range(15), 97, 98, 99, 100, 101))
    forgetful, knowing = build(0, 1), build(0, 1, continued={"r0": second.names})
    assert [r.cached_tokens for r in forgetful.replay([first, second])] == [0, 80]
    assert [r.cached_tokens for r in knowing.replay([first, second])] == [0, 120]


def test_simulating_workers_loads_no_torch() -> None:
    code = "import sys, tercet.simulator.outages; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "grpc", "transformers"} & set(done.stdout.split())
