"""Who gives to whom, how much, and when nobody does."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tercet.cluster.migration import Planner, Relieve, Standing
from tercet.config import MigrationConfig
from tercet.ids import Incarnation, WorkerId
from tercet.role import Role
from tercet.wire import LoadReport

CONFIG = MigrationConfig(low_steps=16.0, high_steps=128.0, dwell_s=2.0, tokens_max=2048)
BLOCK_TOKENS = 16
A, B, C, D = (WorkerId(f"decode-{n}") for n in range(4))


def load(used: int, running: int = 8, **figures: int) -> LoadReport:
    report = LoadReport(
        role=Role.DECODE,
        waiting=0,
        running=running,
        holding=0,
        pulling=0,
        pending_prefill_tokens=0,
        context_tokens=used * BLOCK_TOKENS,
        blocks_total=1000,
        blocks_used=used,
    )
    return replace(report, **figures)


def standing(worker: WorkerId, report: LoadReport, headroom_tokens: int = 0) -> Standing:
    life = Incarnation(f"life-of-{worker}")
    return Standing.of(worker, life, report, BLOCK_TOKENS, headroom_tokens)


def plan(*standings: Standing, config: MigrationConfig = CONFIG) -> list[Relieve]:
    return Planner(config).plan(standings, 0.0)


def test_freeness_is_decode_steps_until_full():
    assert standing(A, load(900, running=10)).freeness == 160.0
    assert standing(A, load(900, running=10, quarantined_blocks=50)).freeness == 80.0
    assert standing(A, load(0, running=0)).freeness == 16000.0
    assert standing(A, load(1000)).freeness == 0.0


def test_a_full_worker_gives_to_the_freest():
    full, half, idle = load(995), load(500), load(0, running=0)
    assert plan(standing(A, full), standing(B, half), standing(C, idle)) == [Relieve(A, C, 2048)]


def test_the_fullest_is_paired_with_the_freest_and_the_next_with_the_next():
    orders = plan(
        standing(A, load(995)),
        standing(B, load(1000)),
        standing(C, load(300)),
        standing(D, load(100)),
    )
    assert [(order.source, order.destination) for order in orders] == [(B, D), (A, C)]


def test_between_the_thresholds_nobody_moves():
    assert plan(standing(A, load(950, running=10)), standing(B, load(0))) == []
    assert plan(standing(A, load(995)), standing(B, load(930, running=10))) == []


def test_of_a_small_gap_only_half_is_moved():
    small = replace(CONFIG, low_steps=16.0, high_steps=20.0)
    [order] = plan(
        standing(A, load(990, running=20)), standing(B, load(970, running=8)), config=small
    )
    assert order.tokens == 160


def test_the_only_request_of_a_worker_stays():
    assert plan(standing(A, load(1000, running=1)), standing(B, load(0, running=0))) == []


def test_a_long_prompt_that_finds_no_room_counts_as_if_it_had_it():
    apart = standing(A, load(800, running=4)), standing(B, load(600, running=4))
    assert plan(*apart) == []
    waits = standing(A, load(800, running=4, waiting=1, head_tokens=4000)), apart[1]
    assert [order.source for order in plan(*waits)] == [A]


def test_whoever_is_beside_an_important_request_gives_sooner():
    quiet, urgent = load(800), load(800, urgent=1)
    beside = standing(B, load(200))
    assert plan(standing(A, quiet, 3200), beside) == []
    assert plan(standing(A, urgent), beside) == []
    [order] = plan(standing(A, urgent, 3200), beside)
    assert (order.source, order.destination) == (A, B)


def test_a_worker_rests_after_a_move_and_a_new_life_of_it_does_not():
    planner = Planner(CONFIG)
    full, idle = standing(A, load(995)), standing(B, load(0, running=0))
    assert planner.plan([full, idle], 0.0)
    assert planner.plan([full, idle], 1.9) == []
    reborn = Standing.of(B, Incarnation("another"), load(0, running=0), BLOCK_TOKENS, 0)
    assert planner.plan([full, reborn], 1.9) == [], "the source rests"
    assert planner.plan([full, idle], 2.0)


loads = st.builds(
    load,
    used=st.integers(0, 1000),
    running=st.integers(0, 64),
    urgent=st.integers(0, 2),
    head_tokens=st.integers(0, 8000),
)


@given(st.lists(loads, min_size=2, max_size=6), st.integers(0, 8000))
def test_whatever_is_given_the_gap_shrinks_and_nobody_becomes_what_the_other_was(
    reports, headroom_tokens
):
    standings = {
        worker: standing(worker, report, headroom_tokens)
        for worker, report in zip(
            (WorkerId(f"decode-{n}") for n in range(6)), reports, strict=False
        )
    }
    orders = plan(*standings.values())
    parties = [party for order in orders for party in (order.source, order.destination)]
    assert len(parties) == len(set(parties)), "one move in or out for each"
    for order in orders:
        source, destination = standings[order.source], standings[order.destination]
        assert source.freeness < CONFIG.low_steps < CONFIG.high_steps < destination.freeness
        assert 0 < order.tokens <= min(CONFIG.tokens_max, source.running_tokens)
        for given_tokens in {1, order.tokens // 2 or 1, order.tokens}:
            after = source.without(given_tokens), destination.without(-given_tokens)
            assert after[0].freeness <= after[1].freeness
            assert after[0].free_tokens <= after[1].free_tokens
