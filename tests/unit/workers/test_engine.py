"""The engine's conversation: what it answers to which command, with a toy model whose output depends on its KV."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec
import pytest
import torch

from tercet.clock import ManualClock
from tercet.config import EngineConfig
from tercet.ids import Epoch, RequestId
from tercet.latency import LatencyModel
from tercet.request import FinishReason, RequestSpec, Sampling
from tercet.wire import Failed, Refused, Started, Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import (
    Absent,
    Arrived,
    Command,
    Commit,
    Drop,
    DropOwner,
    Ended,
    Event,
    Expose,
    Held,
    Published,
    Recompute,
    Release,
    Reserve,
    Reserved,
    Run,
    Said,
    Unquarantine,
)
from tercet.workers.late_runner import LateRunner
from tercet.workers.runner import BetweenLayers, RunnerLost, Slice, go_on
from tercet.workers.toy_runner import ToyRunner

E0, E1, E2 = Epoch(0), Epoch(1), Epoch(2)
A, B = RequestId("a"), RequestId("b")
PROMPT = list(range(1, 15))  # 14 tokens: three full blocks and a half


class BrokenOnce(ToyRunner):
    """Fails when told to, and then works again."""

    broken = False
    poisoned = False

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        if self.broken:
            self.broken = False
            raise RuntimeError("the device fell off the bus")
        logits = super().forward(slices, between_layers)
        if self.poisoned:
            self.poisoned = False
            logits[0] = float("nan")
        return logits


@dataclass
class Bench:
    """An engine and everything it said."""

    engine: Engine
    runner: BrokenOnce
    events: list[Event]
    clock: ManualClock

    def hear(self) -> list[Event]:
        """Steps until something is said."""
        while not (said := self.engine.step()):
            assert self.engine.has_work
        return said

    def tell(self, *commands: Command) -> list[Event]:
        """Commands, then steps until there is nothing to do; returns what was said meanwhile."""
        for command in commands:
            self.engine.handle(command)
        said: list[Event] = []
        for _ in range(500):
            if not self.engine.has_work:
                break
            said += self.engine.step()
            self.engine.check_integrity()
        else:
            raise AssertionError("the engine spins")
        self.events += said
        return said


def make_bench(late: bool = False, **options: float) -> Bench:
    eos = frozenset({options.pop("eos")}) if "eos" in options else frozenset()
    context = options.pop("context", 4096)
    config = EngineConfig(**{"block_tokens": 4, "kv_blocks": 32, "step_tokens_max": 8, **options})
    runner = BrokenOnce(config, eos_token_ids=eos, context_tokens_max=context)
    clock = ManualClock()
    return Bench(Engine(LateRunner(runner) if late else runner, config, clock), runner, [], clock)


@pytest.fixture(params=[False, True], ids=["at once", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    """Whether the device is a step behind."""
    return bool(request.param)


@pytest.fixture
def bench(late: bool) -> Iterator[Bench]:
    bench = make_bench(late)
    yield bench
    load = bench.engine.load()
    left = (load.waiting, load.running, load.holding, load.pulling)
    assert (left, load.blocks_used, load.quarantined_blocks) == ((0, 0, 0, 0), 0, 0)


def spec(request: RequestId = A, prompt: list[int] = PROMPT, **sampling: object) -> RequestSpec:
    return RequestSpec(request, prompt, Sampling(**{"max_tokens": 5, **sampling}))


def messages(events: list[Event], kind: type) -> list[object]:
    return [e.message for e in events if isinstance(e, Said) and isinstance(e.message, kind)]


def output(events: list[Event], request: RequestId = A) -> list[int]:
    """The tokens said about a request; asserts that each message goes on where the last one ended."""
    tokens: list[int] = []
    said = [m for m in messages(events, Tokens) if m.request == request]
    start = said[0].index if said else 0
    for message in said:
        assert message.index == start + len(tokens)
        tokens += message.tokens
    return tokens


def expected(count: int, prompt: list[int] = PROMPT, **sampling: object) -> list[int]:
    """The output of the same request, alone on an engine with plenty of everything."""
    alone = make_bench(step_tokens_max=4096, kv_blocks=512)
    return output(alone.tell(Run(spec(A, prompt, max_tokens=count, **sampling), E0, "f")))


def copy_blocks(
    source: Bench, theirs: Sequence[int], destination: Bench, ours: Sequence[int]
) -> None:
    destination.runner.kv.tensor[list(ours)] = source.runner.kv.tensor[list(theirs)]


def test_a_request_is_prefilled_decoded_finished_and_forgotten(bench: Bench) -> None:
    events = bench.tell(Run(spec(), E0, "f"))
    assert len(output(events)) == 5
    last = messages(events, Tokens)[-1]
    assert last.finish is FinishReason.LENGTH
    assert (last.usage.cached_tokens, last.usage.computed_tokens) == (0, 14)
    assert events[-1] == Ended(A, E0)
    assert [m.usage for m in messages(events, Tokens)[:-1]] == [None] * 4


def test_the_second_turn_finds_the_first_one_in_the_cache(bench: Bench) -> None:
    first = output(bench.tell(Run(spec(), E0, "f")))
    longer = [*PROMPT, *first, 3, 3]
    last = messages(bench.tell(Run(spec(B, longer), E0, "f")), Tokens)[-1]
    assert (last.usage.cached_tokens, last.usage.computed_tokens) == (16, 5)
    assert output(bench.events, B) == expected(5, longer)


def test_caches_of_different_tenants_are_apart(bench: Bench) -> None:
    bench.tell(Run(spec(), E0, "f"))
    other = RequestSpec(B, PROMPT, Sampling(), tenant_salt="x")
    assert messages(bench.tell(Run(other, E0, "f")), Tokens)[-1].usage.cached_tokens == 0


def test_a_replay_goes_on_at_the_next_index_with_the_same_tokens(bench: Bench) -> None:
    whole = expected(8, temperature=1.0, seed=9, presence_penalty=0.5)
    sampling = {"max_tokens": 8, "temperature": 1.0, "seed": 9, "presence_penalty": 0.5}
    events = bench.tell(Run(spec(**sampling), E2, "f", output=tuple(whole[:3])))
    assert messages(events, Tokens)[0].index == 3
    assert output(events) == whole[3:]


def test_a_replay_of_a_complete_log_only_says_so(bench: Bench) -> None:
    events = bench.tell(Run(spec(max_tokens=2), E2, "f", output=(1, 2)))
    (message,) = messages(events, Tokens)
    assert (message.index, message.tokens, message.finish) == (2, [], FinishReason.LENGTH)
    assert events[-1] == Ended(A, E2)


def test_an_end_token_stops_and_is_the_last_token(late: bool) -> None:
    whole = expected(12, [1])
    eos = whole[5]
    bench = make_bench(late, eos=eos)
    events = bench.tell(Run(spec(prompt=[1], max_tokens=12), E0, "f"))
    assert output(events) == whole[: whole.index(eos) + 1]
    assert messages(events, Tokens)[-1].finish is FinishReason.STOP
    ignoring = bench.tell(Run(spec(B, [1], max_tokens=12, ignore_eos=True), E0, "f"))
    assert output(ignoring, B) == whole


def test_the_context_limit_ends_a_request(late: bool) -> None:
    bench = make_bench(late, context=17)
    events = bench.tell(Run(spec(max_tokens=99), E0, "f"))
    assert len(output(events)) == 3
    assert messages(events, Tokens)[-1].finish is FinishReason.LENGTH


@pytest.mark.parametrize("prompt", [[], [99999], [1] * 128, [1] * 5000])
def test_what_can_never_be_served_fails_for_good(bench: Bench, prompt: list[int]) -> None:
    for command in (Run(spec(A, prompt), E0, "f"), Reserve(spec(A, prompt), E0, "f")):
        said, ended = bench.tell(command)
        assert isinstance(said, Said)
        assert isinstance(said.message, Failed)
        assert not said.message.retryable
        assert ended == Ended(A, E0)


def test_a_request_that_outgrows_the_pool_fails_instead_of_spinning(late: bool) -> None:
    bench = make_bench(late, kv_blocks=4)
    events = bench.tell(Run(spec(max_tokens=50), E0, "f"))
    assert output(events) == expected(3), "16 tokens have KV in 4 blocks, the next has none"
    (failure,) = messages(events, Failed)
    assert "KV blocks" in failure.reason
    assert not failure.retryable
    assert bench.engine.load().blocks_used == 0


def test_a_full_queue_refuses_with_a_delay() -> None:
    bench = make_bench(waiting_max=1)
    bench.engine.handle(Run(spec(A), E0, "f"))
    bench.engine.handle(Run(spec(B), E0, "f"))
    events = bench.tell()
    (refusal,) = messages(events, Refused)
    assert refusal.request == B
    assert refusal.retry_after_s > 0
    assert Ended(B, E0) in events
    assert len(output(events, A)) == 5


def test_a_crowd_in_a_small_pool_is_preempted_and_still_right(late: bool) -> None:
    bench = make_bench(late, kv_blocks=12)
    prompts = [[i + 1, *range(2, 9)] for i in range(5)]
    ids = [RequestId(f"r{i}") for i in range(5)]
    runs = [Run(spec(i, p, max_tokens=14), E0, "f") for i, p in zip(ids, prompts, strict=True)]
    events = bench.tell(*runs)
    for request, prompt in zip(ids, prompts, strict=True):
        assert output(events, request) == expected(14, prompt)
    bills = [m.usage for m in messages(events, Tokens) if m.finish]
    assert sum(usage.preemptions for usage in bills) > 0
    assert bench.engine.load().blocks_used == 0


def test_a_failing_model_fails_its_batch_and_the_engine_lives_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.runner.broken = True
    events = bench.tell(Run(spec(), E0, "f"))
    (failure,) = messages(events, Failed)
    assert failure.retryable
    assert "fell off the bus" in failure.reason
    assert "fell off the bus" in caplog.text
    assert output(bench.tell(Run(spec(), E2, "f"))) == expected(5)


def test_an_engine_whose_runner_is_lost_ends_instead_of_failing_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its worker is then lost, and every request is replayed elsewhere."""
    bench = make_bench()

    def forward(slices: object, between_layers: object) -> torch.Tensor:
        raise RunnerLost("the ranks have parted")

    monkeypatch.setattr(bench.runner, "forward", forward)
    bench.engine.handle(Run(spec(), E0, "f"))
    with pytest.raises(RunnerLost):
        bench.engine.step()


def test_logits_that_are_not_numbers_fail_their_request_and_are_not_cached(bench: Bench) -> None:
    bench.runner.poisoned = True
    short = spec(B, PROMPT[:7])
    events = bench.tell(Run(short, E0, "f"))
    (failure,) = messages(events, Failed)
    assert "finite" in failure.reason
    assert messages(bench.tell(Run(short, E2, "f")), Tokens)[-1].usage.cached_tokens == 0


def test_a_hand_off_says_started_before_it_computes_and_publishes_while_it_does(
    bench: Bench,
) -> None:
    engine = bench.engine
    engine.handle(Run(spec(), E0, "f", hand_off=True))
    assert bench.hear() == [Said("f", Started(A, E0))]
    (first,) = bench.hear()
    assert isinstance(first, Published)
    assert (first.first, len(first.blocks), first.tokens) == (0, 2, 8)
    full, tokens, rest, held = bench.hear()
    assert isinstance(full, Published)
    assert (full.first, len(full.blocks), full.tokens) == (2, 1, 12)
    assert isinstance(tokens, Said)
    assert isinstance(rest, Published)
    assert (rest.first, len(rest.blocks), rest.tokens) == (3, 1, 14)
    assert [int(bench.runner.kv.generations[b]) for b in first.blocks] == list(first.generations)
    assert held == Held(A, E0, "f", tuple(expected(1)), 14, 0, 14)
    assert engine.load().holding == 1
    assert not engine.has_work
    assert bench.tell(Release(A, E0)) == [Ended(A, E0)]


def test_a_hand_off_publishes_what_is_cached_at_once(bench: Bench) -> None:
    bench.tell(Run(spec(B), E0, "f"))
    bench.engine.handle(Run(spec(), E0, "f", hand_off=True))
    started, published = bench.engine.step()
    assert started == Said("f", Started(A, E0))
    assert isinstance(published, Published)
    assert published.tokens == 12
    bench.tell(Drop(A, E0))


@pytest.mark.parametrize("sampling", [{"max_tokens": 1}, {"stop_token_ids": tuple(range(64))}])
def test_a_hand_off_that_is_done_with_its_first_token_is_not_held(
    bench: Bench, sampling: dict[str, object]
) -> None:
    events = bench.tell(Run(spec(**sampling), E0, "f", hand_off=True))
    assert messages(events, Tokens)[-1].finish is not None
    assert events[-1] == Ended(A, E0)
    assert not any(isinstance(event, Held) for event in events)


def test_a_release_before_the_end_stops_a_hand_off_nobody_pulls_any_more(bench: Bench) -> None:
    bench.engine.handle(Run(spec(), E0, "f", hand_off=True))
    bench.engine.step()
    assert bench.tell(Release(A, E0)) == [Ended(A, E0)]


def hand_over(source: Bench, destination: Bench, **sampling: object) -> tuple[Reserved, Held]:
    """Prefill on one engine and reserve on the other; nothing is copied yet."""
    told = source.tell(Run(spec(**sampling), E0, "f", hand_off=True))
    held = next(event for event in told if isinstance(event, Held))
    answer = destination.tell(Reserve(spec(**sampling), E1, "f"))
    reserved = next(event for event in answer if isinstance(event, Reserved))
    return reserved, held


def published_blocks(bench: Bench) -> list[int]:
    return [b for e in bench.events if isinstance(e, Published) for b in e.blocks]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "seed": 4, "logprobs": 2}])
def test_a_hand_off_ends_in_the_tokens_of_a_local_run(
    bench: Bench, sampling: dict[str, object]
) -> None:
    source = make_bench()
    reserved, held = hand_over(source, bench, **sampling)
    assert len(reserved.blocks) == 4
    assert reserved.held_blocks == 0
    copy_blocks(source, published_blocks(source), bench, reserved.blocks)
    commit = Commit(A, E1, held.output, held.tokens, 14, 4096, 0.25, 0.125, held.logprobs)
    events = bench.tell(Arrived(A, E1, 8), Arrived(A, E1, 14), commit)
    assert source.tell(Release(A, E0)) == [Ended(A, E0)]
    first, *_, last = messages(events, Tokens)
    assert (first.index, tuple(first.tokens)) == (0, held.output), "the given token is repeated"
    assert output(events) == expected(5, **sampling)
    assert (last.usage.computed_tokens, last.usage.pulled_tokens) == (0, 14)
    assert (last.usage.pulled_bytes, last.usage.pull_s, last.usage.pull_exposed_s) == (
        4096,
        0.25,
        0.125,
    )
    if "logprobs" in sampling:
        assert all(len(m.logprobs or []) == len(m.tokens) for m in messages(events, Tokens))


def test_a_wrong_byte_in_a_pulled_block_changes_the_tokens(bench: Bench) -> None:
    """The toy model is honest: otherwise the test above would prove nothing."""
    source = make_bench()
    reserved, held = hand_over(source, bench)
    copy_blocks(source, published_blocks(source), bench, reserved.blocks)
    bench.runner.kv.tensor[reserved.blocks[1]].view(-1)[0] += 1
    events = bench.tell(Arrived(A, E1, 14), Commit(A, E1, held.output, held.tokens))
    assert output(events)[1:] != expected(5)[1:]


def test_a_second_hand_off_of_the_same_prompt_needs_no_full_block(bench: Bench) -> None:
    bench.tell(Run(spec(B), E0, "f"))
    source = make_bench()
    reserved, held = hand_over(source, bench)
    assert reserved.held_blocks == 3
    copy_blocks(source, published_blocks(source)[3:], bench, reserved.blocks[3:])
    events = bench.tell(Arrived(A, E1, 14), Commit(A, E1, held.output, held.tokens))
    assert output(events) == expected(5)
    assert messages(events, Tokens)[-1].usage.cached_tokens == 12


def test_a_failed_pull_is_recomputed_and_its_blocks_are_kept_apart(bench: Bench) -> None:
    source = make_bench()
    reserved, _ = hand_over(source, bench)
    copy_blocks(source, published_blocks(source)[:2], bench, reserved.blocks[:2])
    doubtful = reserved.blocks[2:3]
    bench.engine.handle(Arrived(A, E1, 8))
    bench.engine.handle(Recompute(A, E1, doubtful))
    events: list[Event] = []
    while bench.engine.has_work:
        bench.runner.kv.tensor[list(doubtful)] = 99.0  # the transfer still writes
        events += bench.engine.step()
        bench.engine.check_integrity()
    last = messages(events, Tokens)[-1]
    assert output(events) == expected(5)
    assert last.usage.recomputed
    assert last.usage.computed_tokens == 6, "two blocks had arrived"
    assert bench.engine.load().quarantined_blocks == 1
    bench.tell(Unquarantine(doubtful))


def test_a_dropped_pull_leaves_its_blocks_in_quarantine_until_it_ends(bench: Bench) -> None:
    reserved, _ = hand_over(make_bench(), bench)
    assert bench.tell(Drop(A, E1, reserved.blocks)) == [Ended(A, E1)]
    assert bench.engine.load().quarantined_blocks == 4
    bench.tell(Unquarantine(reserved.blocks))


def test_a_reservation_that_does_not_fit_is_refused_at_once() -> None:
    bench = make_bench(kv_blocks=5)
    bench.tell(Reserve(spec(A), E1, "f"))
    events = bench.tell(Reserve(spec(B), E1, "f"))
    (refusal,) = messages(events, Refused)
    assert "KV blocks" in refusal.reason
    assert events[-1] == Ended(B, E1)


def test_drop_reaches_every_phase_and_is_idempotent(bench: Bench) -> None:
    waiting = [Run(spec(A), E0, "f"), Drop(A, E0), Drop(A, E0)]
    assert bench.tell(*waiting) == [Ended(A, E0)]
    bench.engine.handle(Run(spec(A), E0, "f"))
    bench.engine.step()
    assert bench.tell(Drop(A, E1)) == [Ended(A, E0)]
    bench.engine.handle(Run(spec(A), E0, "f", hand_off=True))
    bench.engine.step()
    assert bench.tell(Drop(A, E0)) == [Ended(A, E0)], "announced, but not computed yet"
    bench.tell(Run(spec(A), E0, "f", hand_off=True))
    assert bench.tell(Drop(A, E0)) == [Ended(A, E0)]
    bench.tell(Reserve(spec(A), E1, "f"))
    assert bench.tell(Drop(A, E0)) == [], "that was meant for an earlier life"
    assert bench.tell(Drop(A, E1)) == [Ended(A, E1)]


def test_a_lost_front_door_takes_its_requests_along_but_not_the_moves(bench: Bench) -> None:
    bench.tell(Run(spec(A), E0, "gone", hand_off=True), Reserve(spec(B), E1, "gone"))
    bench.engine.handle(Run(spec(RequestId("c")), E0, "gone"))
    bench.engine.handle(Run(spec(RequestId("d")), E0, "stays"))
    events = bench.tell(DropOwner("gone"))
    assert Ended(RequestId("c"), E0) in events
    assert output(events, RequestId("d")) == expected(5)
    load = bench.engine.load()
    assert (load.holding, load.pulling) == (1, 1)
    bench.tell(Drop(A, E0), Drop(B, E1))


def test_a_later_life_replaces_an_earlier_one_and_never_the_reverse(bench: Bench) -> None:
    bench.engine.handle(Run(spec(), E0, "f"))
    bench.engine.step()
    bench.engine.handle(Run(spec(), E2, "f"))
    bench.engine.handle(Run(spec(), E1, "f"))
    events = bench.tell(Run(spec(), E2, "f"))
    assert [e for e in events if isinstance(e, Ended)] == [Ended(A, E0), Ended(A, E1), Ended(A, E2)]
    assert {m.epoch for m in messages(events, Tokens)} == {E2}


def test_a_later_life_waits_for_a_pull_that_may_still_write(bench: Bench) -> None:
    bench.tell(Reserve(spec(), E1, "f"))
    events = bench.tell(Run(spec(), E2, "f"))
    (refusal,) = messages(events, Refused)
    assert refusal.epoch == E2
    assert bench.engine.load().pulling == 1
    bench.tell(Drop(A, E1))


def test_what_is_still_pulled_cannot_be_pulled_from_and_has_not_ended(bench: Bench) -> None:
    bench.tell(Reserve(spec(), E1, "f"))
    assert bench.tell(Expose(A, E1, 1)) == [Absent(A, E1, 1)]
    assert bench.engine.load().pulling == 1
    bench.tell(Drop(A, E1))


def test_commands_for_strangers_have_no_effect(bench: Bench) -> None:
    strangers: list[Command] = [
        Arrived(A, E0, 4),
        Commit(A, E0, (1,), 4),
        Recompute(A, E0),
        Release(A, E0),
        Drop(A, E0),
        DropOwner("f"),
        Unquarantine(()),
    ]
    assert bench.tell(*strangers) == []


def test_an_engine_whose_blocks_are_all_held_sleeps_instead_of_spinning() -> None:
    bench = make_bench(kv_blocks=4)
    bench.tell(Run(spec(A), E0, "f", hand_off=True))
    assert bench.tell(Run(spec(B, max_tokens=2), E0, "f")) == []
    assert not bench.engine.has_work
    assert bench.engine.load().waiting == 1
    events = bench.tell(Release(A, E0))
    assert output(events, B) == expected(2)


def test_step_times_are_measured_and_reported() -> None:
    config = EngineConfig(block_tokens=4, kv_blocks=64, step_tokens_max=8)
    clock = ManualClock()

    class Timed(ToyRunner):
        def forward(
            self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
        ) -> torch.Tensor:
            clock.advance(0.001 * sum(len(part.tokens) for part in slices))
            return super().forward(slices, between_layers)

    engine = Engine(Timed(config), config, clock)
    for i in range(8):
        engine.handle(Run(spec(RequestId(f"r{i}"), [i + 1] * 40, max_tokens=9), E0, "f"))
        while engine.has_work:
            engine.step()
    load = engine.load()
    model = LatencyModel.from_coefficients(load.prefill_coefficients, load.decode_coefficients)
    assert model.predict_prefill_s(8, 40) == pytest.approx(0.008, rel=0.05)
    assert model.predict_decode_s(1, 44) == pytest.approx(0.001, rel=0.05)


def test_retained_kv_is_told_of_and_given_up_in_time() -> None:
    bench = make_bench(retention_s_max=60)
    wanted = msgspec.structs.replace(spec(), kv_ttl_s=10.0)
    bench.tell(Run(wanted, E0, "f"))
    load = bench.engine.load()
    assert (load.retained_blocks, load.blocks_used) == (4, 0)
    bench.clock.advance(9.9)
    bench.tell(Run(spec(B, [7]), E0, "f"))
    assert bench.engine.load().retained_blocks == 4
    bench.clock.advance(0.1)
    bench.tell(Run(spec(B, [8]), E1, "f"))
    assert bench.engine.load().retained_blocks == 0


def test_no_more_than_the_share_is_retained() -> None:
    bench = make_bench(retention_s_max=60, retention_share_max=0.1)
    bench.tell(Run(msgspec.structs.replace(spec(), kv_ttl_s=10.0), E0, "f"))
    assert bench.engine.load().retained_blocks == 3, "a tenth of 32"


@pytest.mark.parametrize("kv_ttl_s", [-1.0, float("nan"), float("inf")])
def test_a_time_that_would_never_end_is_refused(kv_ttl_s: float) -> None:
    bench = make_bench()
    events = bench.tell(Run(msgspec.structs.replace(spec(), kv_ttl_s=kv_ttl_s), E0, "f"))
    [failed] = messages(events, Failed)
    assert failed == Failed(A, E0, "kv_ttl_s is out of range", retryable=False)
