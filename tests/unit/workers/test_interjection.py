"""A short urgent prompt amid a step that computes a long one: answered within two layers, and nobody's output is another.

Layers are counted and nothing is timed. The `Gate` stands where the rest of the worker would, and is asked once in each layer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tercet.clock import ManualClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Failed, Started, Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import (
    Command,
    Drop,
    DropOwner,
    Event,
    Expose,
    Freeze,
    Held,
    Release,
    Reserve,
    Reserved,
    Run,
    Said,
)
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import BetweenLayers, Runner, Slice, go_on
from tercet.workers.toy_runner import ToyRunner

E0, E1, E2 = Epoch(0), Epoch(1), Epoch(2)
LONG, SHORT, OTHER = RequestId("long"), RequestId("short"), RequestId("other")
LAYERS = 8
COMES_AT = 3
"""The layer in which somebody comes."""


@dataclass
class Gate:
    """Lets `comes` in when the `at`-th layer of a long step begins, and notes in which layer what was said."""

    comes: list[Command] = field(default_factory=list)
    at: int = COMES_AT
    layer: int = 0
    said: list[tuple[int, Event]] = field(default_factory=list)
    """Amid steps, and in which layer."""
    heard: list[Event] = field(default_factory=list)
    """Everything."""

    def commands(self) -> list[Command]:
        self.layer += 1
        return self.comes if self.layer == self.at else []

    def say(self, events: list[Event]) -> None:
        self.said += [(self.layer, event) for event in events]
        self.heard += events


def config(**options: object) -> EngineConfig:
    defaults: dict[str, object] = dict(block_tokens=16, kv_blocks=4096, step_tokens_max=32768)
    return EngineConfig(**(defaults | options))


def toy_engine(**options: object) -> Engine:
    settings = config(**options)
    runner = ToyRunner(settings, layers=LAYERS, head_dim=1, context_tokens_max=10**6)
    return Engine(runner, settings, ManualClock())


def run(
    name: RequestId, tokens: int, *, epoch: Epoch = E0, owner: str = "f", hand_off: bool = False
) -> Run:
    """A prompt like no other's."""
    first = {LONG: 1, SHORT: 7, OTHER: 13}[name]
    prompt = [(first + 5 * i) % 60 for i in range(tokens)]
    return Run(RequestSpec(name, prompt, Sampling(max_tokens=4)), epoch, owner, (), hand_off)


def serve(engine: Engine, gate: Gate) -> list[Event]:
    """Steps until nothing is left to do; returns everything that was said, in order."""
    while engine.has_work:
        gate.heard += engine.step(gate)
        engine.check_integrity()
    return gate.heard


def told(events: list[Event], request: RequestId) -> list[Tokens]:
    messages = [event.message for event in events if isinstance(event, Said)]
    return [m for m in messages if isinstance(m, Tokens) and m.request == request]


def output(events: list[Event], request: RequestId) -> list[int]:
    tokens: list[int] = []
    for message in told(events, request):
        del tokens[message.index :]
        tokens += message.tokens
    return tokens


def alone(command: Run, engine: Engine | None = None) -> list[int]:
    engine = engine or toy_engine()
    engine.handle(command)
    return output(serve(engine, Gate()), command.spec.id)


def first_token_layer(gate: Gate, request: RequestId) -> int:
    return next(layer for layer, event in gate.said if told([event], request))


@pytest.mark.parametrize("hand_off", [False, True])
def test_200_tokens_that_come_amid_32_000_have_their_first_token_within_two_layers(
    hand_off: bool,
) -> None:
    engine, gate = toy_engine(), Gate([run(SHORT, 200, hand_off=hand_off)])
    engine.handle(run(LONG, 32_000))
    said = serve(engine, gate)
    assert first_token_layer(gate, SHORT) - COMES_AT <= 2
    assert output(said, LONG) == alone(run(LONG, 32_000))
    assert output(said, SHORT) == alone(run(SHORT, 200))[: 1 if hand_off else None]
    kinds = [type(event.message) for _, event in gate.said if isinstance(event, Said)]
    assert kinds == ([Started, Tokens] if hand_off else [Tokens])
    assert any(isinstance(event, Held) for _, event in gate.said) is hand_off


class Watched:
    """A runner that counts what passes through it, and how deep."""

    def __init__(self, runner: Runner) -> None:
        self.inner, self.depth, self.forwards = runner, 0, []
        self.kv = runner.kv
        self.vocab_size = runner.vocab_size
        self.context_tokens_max = runner.context_tokens_max
        self.eos_token_ids, self.compat = runner.eos_token_ids, runner.compat
        self.break_at_depth = 0

    def forward(self, slices: list[Slice], between_layers: BetweenLayers = go_on) -> torch.Tensor:
        self.depth += 1
        self.forwards.append((self.depth, sum(len(part.tokens) for part in slices)))
        try:
            if self.depth == self.break_at_depth:
                raise RuntimeError("the device fell off the bus")
            return self.inner.forward(slices, between_layers)
        finally:
            self.depth -= 1


def watched(engine: Engine) -> Watched:
    runner = Watched(engine.runner)
    engine._forward._runner = runner
    return runner


def test_nothing_is_computed_twice_and_nobody_interrupts_an_interruption() -> None:
    engine = toy_engine()
    runner = watched(engine)
    engine.handle(run(LONG, 2000))
    serve(engine, Gate([run(SHORT, 100), run(OTHER, 50)]))
    assert runner.forwards[:2] == [(1, 2000), (2, 150)]
    assert all(forward == (1, 3) for forward in runner.forwards[2:])


@pytest.mark.parametrize(
    ("long", "short", "interrupts"),
    [(2000, 500, True), (2000, 501, False), (400, 100, True)],
)
def test_a_step_is_made_longer_by_at_most_a_quarter(
    long: int, short: int, interrupts: bool
) -> None:
    engine = toy_engine()
    runner = watched(engine)
    engine.handle(run(LONG, long))
    said = serve(engine, Gate([run(SHORT, short)]))
    assert (2 in {depth for depth, _ in runner.forwards}) is interrupts
    assert output(said, SHORT) == alone(run(SHORT, short))


def test_in_a_short_step_nobody_is_asked() -> None:
    engine, gate = toy_engine(), Gate()
    engine.handle(run(LONG, 3))
    serve(engine, gate)
    assert gate.layer == 0


def test_a_request_that_is_overdue_is_not_interrupted() -> None:
    engine = toy_engine(prefill_stretch_max=0)
    runner = watched(engine)
    engine.handle(run(LONG, 2000))
    serve(engine, Gate([run(SHORT, 100)]))
    assert {depth for depth, _ in runner.forwards} == {1}


def test_priority_interrupts_too_whatever_else_is_in_the_step() -> None:
    engine = toy_engine(prefill_stretch_max=0)
    short = run(SHORT, 100)
    gate = Gate([Run(msgspec.structs.replace(short.spec, priority=1), E0, "f")])
    engine.handle(run(LONG, 2000))
    engine.handle(run(OTHER, 1))  # the last one of the step, and as short as a decode
    serve(engine, gate)
    assert first_token_layer(gate, SHORT) - COMES_AT <= 2


def test_blocks_are_taken_from_nobody() -> None:
    engine = toy_engine(kv_blocks=130)
    engine.handle(run(LONG, 2000))
    gate = Gate([run(SHORT, 100)])
    said = serve(engine, gate)
    assert not gate.said, "it waited for the blocks"
    assert output(said, SHORT) == alone(run(SHORT, 100))


TROUBLES: dict[str, list[Command]] = {
    "cancel the long one": [Drop(LONG, E0), run(SHORT, 100)],
    "cancel both": [run(SHORT, 100), Drop(LONG, E0), Drop(SHORT, E0)],
    "lose the front door of both": [run(SHORT, 100), DropOwner("f")],
    "replay the long one": [run(LONG, 2000, epoch=E2)],
    "replay both": [run(SHORT, 100), run(LONG, 2000, epoch=E2), run(SHORT, 100, epoch=E2)],
    "move the long one away": [Expose(LONG, E0, 1), Freeze(LONG, E0), run(SHORT, 100)],
    "reserve for one that is computed": [Reserve(run(LONG, 2000).spec, E1, "f")],
    "reserve for another": [Reserve(run(OTHER, 300).spec, E1, "f"), run(SHORT, 100)],
}


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("at", [1, 5, LAYERS])
def test_whatever_comes_amid_a_step_nothing_is_lost_or_mixed_up(trouble: str, at: int) -> None:
    engine, gate = toy_engine(), Gate(TROUBLES[trouble], at)
    engine.handle(run(LONG, 2000))
    said = serve(engine, gate)
    for name, tokens in ((LONG, 2000), (SHORT, 100)):
        known, whole = output(said, name), alone(run(name, tokens))
        assert known == whole[: len(known)]
    for name in (LONG, SHORT, OTHER):
        engine.handle(Drop(name, Epoch(9)))
    engine.step()
    load = engine.load()
    assert (load.waiting, load.running, load.holding, load.pulling) == (0, 0, 0, 0)
    assert load.blocks_used == 0
    assert alone(run(LONG, 2000), engine) == alone(run(LONG, 2000)), "from what is cached now"


def test_what_concerns_the_step_waits_for_its_end_and_so_does_what_comes_after_it() -> None:
    engine, gate = toy_engine(), Gate(TROUBLES["cancel the long one"])
    engine.handle(run(LONG, 2000))
    said = serve(engine, gate)
    assert not gate.said
    assert len(output(said, LONG)) == 1, "the step was finished"
    assert output(said, SHORT) == alone(run(SHORT, 100))


def test_what_does_not_concern_the_step_takes_effect_at_once() -> None:
    engine = toy_engine()
    engine.handle(run(OTHER, 100, hand_off=True))
    serve(engine, Gate())
    assert engine.load().holding == 1
    gate = Gate([Release(OTHER, E0), Reserve(run(SHORT, 100).spec, E1, "f")])
    engine.handle(run(LONG, 2000))
    serve(engine, gate)
    assert [type(event) for _, event in gate.said][-1] is Reserved
    assert engine.load().holding == 0


def test_an_interruption_that_fails_ends_alone() -> None:
    engine = toy_engine()
    watched(engine).break_at_depth = 2
    engine.handle(run(LONG, 2000))
    gate = Gate([run(SHORT, 100)])
    said = serve(engine, gate)
    messages = [event.message for _, event in gate.said if isinstance(event, Said)]
    assert [(type(message), message.request) for message in messages] == [(Failed, SHORT)]
    assert output(said, LONG) == alone(run(LONG, 2000))


def test_time_spent_on_interruptions_is_not_the_steps_own() -> None:
    settings, clock, seen = config(), ManualClock(), []

    class Timed(ToyRunner):
        def forward(
            self, slices: list[Slice], between_layers: BetweenLayers = go_on
        ) -> torch.Tensor:
            clock.advance(0.001 * sum(len(part.tokens) for part in slices))
            return super().forward(slices, between_layers)

    engine = Engine(Timed(settings, layers=LAYERS), settings, clock)
    engine._forward._pace.observe = lambda step, seconds: seen.append(
        (step.prefill_tokens, seconds)
    )
    engine.handle(run(LONG, 2000))
    serve(engine, Gate([run(SHORT, 100)]))
    assert seen[0] == (100, pytest.approx(0.1))
    assert seen[1] == (2000, pytest.approx(2.0))


# ---- with a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=[("llama", "float32"), ("qwen3", "bfloat16")], ids="-".join)
def open_model(request: pytest.FixtureRequest, tmp_path: object) -> Callable[[], Engine]:
    family, dtype = request.param
    shape = AutoConfig.for_model(
        family,
        vocab_size=128,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(shape).save_pretrained(tmp_path)
    settings = config(kv_blocks=256, step_tokens_max=2048)

    def load() -> Engine:
        runner = ModelRunner.load(ModelConfig(path=str(tmp_path), dtype=dtype), settings)
        return Engine(runner, settings, ManualClock())

    return load


def test_a_models_keys_values_and_tokens_are_the_same_to_the_last_bit(
    open_model: Callable[[], Engine],
) -> None:
    long, short = run(LONG, 1500), run(SHORT, 120)
    calm, disturbed = open_model(), open_model()
    gate = Gate([short])
    for engine in (calm, disturbed):
        engine.handle(long)
    calm_events = serve(calm, Gate())
    events = serve(disturbed, gate)
    assert first_token_layer(gate, SHORT) - COMES_AT <= 2
    assert output(events, LONG) == output(calm_events, LONG)
    assert output(events, SHORT) == alone(short, open_model())
    assert len(set(output(events, LONG) + output(events, SHORT))) > 2, "it would prove nothing"
    blocks = -(-1500 // 16)
    theirs, ours = (engine.runner.kv.tensor[:blocks] for engine in (calm, disturbed))
    assert torch.equal(theirs, ours)
