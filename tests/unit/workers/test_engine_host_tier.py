"""An engine whose device is small, with host memory behind it: nobody can tell by the tokens, and little is computed twice."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import structs

from tercet.clock import ManualClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import TierFigures, Tokens, Usage
from tercet.workers.engine import Engine
from tercet.workers.events import Drop, Run, Said
from tercet.workers.host_tier.copying import OpenCopier, open_copier
from tercet.workers.host_tier.late_copier import LateCopier
from tercet.workers.late_runner import LateRunner
from tercet.workers.model_runner import ModelRunner
from tercet.workers.toy_runner import ToyRunner

E0 = Epoch(0)
CONFIG = EngineConfig(
    block_tokens=16,
    kv_blocks=40,
    host_kv_blocks=200,
    step_tokens_max=128,
    running_max=8,
    admission="aggressive",
    start_within_s=1e9,
)


def late_by(asked_max: int) -> OpenCopier:
    return lambda kv, blocks: LateCopier(open_copier(kv, blocks), asked_max)


@dataclass
class Talk:
    """An engine, and everything it said to anybody."""

    engine: Engine
    output: dict[str, list[int]] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)

    def say(self, request: str, prompt: list[int], max_tokens: int = 40, **sampling: float) -> None:
        spec = RequestSpec(
            RequestId(request),
            list(prompt),
            Sampling(max_tokens=max_tokens, ignore_eos=True, **sampling),
        )
        self.output[request] = []
        self.engine.handle(Run(spec, E0, "f"))

    def step(self) -> None:
        for event in self.engine.step():
            if isinstance(event, Said) and isinstance(message := event.message, Tokens):
                self.output[message.request] += message.tokens
                if message.usage:
                    self.usage[message.request] = message.usage
        self.engine.check_integrity()

    def finish(self) -> None:
        for _ in range(5000):
            if not self.engine.has_work:
                break
            self.step()
        else:
            raise AssertionError("the engine spins")
        assert self.engine.load().blocks_used == 0

    @property
    def computed(self) -> int:
        """Prompt tokens, counting again what was computed again."""
        return sum(usage.computed_tokens for usage in self.usage.values())

    @property
    def preemptions(self) -> int:
        return sum(usage.preemptions for usage in self.usage.values())

    @property
    def figures(self) -> TierFigures:
        return self.engine.load().host


def talk(
    config: EngineConfig = CONFIG,
    *,
    host_blocks: int = 200,
    late: bool = False,
    open_copier: OpenCopier = open_copier,
) -> Talk:
    config = structs.replace(config, host_kv_blocks=host_blocks)
    runner = ToyRunner(config)
    return Talk(Engine(LateRunner(runner) if late else runner, config, ManualClock(), open_copier))


def prompt(number: int, tokens: int) -> list[int]:
    dice = random.Random(number)
    return [dice.randrange(64) for _ in range(tokens)]


def converse(
    to: Talk, *, seed: int, conversations: int = 6, turns: int = 3, together: int = 3
) -> None:
    """Each conversation comes again with what was said, when the device has had others for longer than it remembers."""
    dice = random.Random(seed)
    said = [prompt(100 * seed + i, dice.randrange(100, 250)) for i in range(conversations)]
    for turn in range(turns):
        waiting = list(range(conversations))
        dice.shuffle(waiting)
        while waiting:
            some, waiting = waiting[:together], waiting[together:]
            for i in some:
                to.say(f"{i}.{turn}", said[i], 50, seed=i, temperature=i % 2)
            to.finish()
            for i in some:
                said[i] += to.output[f"{i}.{turn}"]


@pytest.fixture(params=[0, 3, 10**9], ids=["at once", "late", "as late as can be"])
def copier(request: pytest.FixtureRequest) -> OpenCopier:
    return late_by(request.param)


@pytest.mark.parametrize("late", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("host_blocks", [20, 200])
def test_conversations_that_come_back_go_on_as_without_a_tier(
    late: bool, host_blocks: int, copier: OpenCopier
) -> None:
    without, tiered = (
        talk(host_blocks=0),
        talk(host_blocks=host_blocks, late=late, open_copier=copier),
    )
    converse(without, seed=1)
    converse(tiered, seed=1)
    assert without.preemptions, "nobody ever gave way"
    assert tiered.output == without.output


def test_what_comes_back_is_not_computed_again() -> None:
    without, tiered = talk(host_blocks=0), talk()
    converse(without, seed=2)
    converse(tiered, seed=2)
    assert tiered.computed < without.computed / 2
    figures = tiered.figures
    assert figures.host_hit_tokens > 500
    assert figures.saved_bytes == figures.saved_blocks * ToyRunner(CONFIG).kv.block_bytes
    assert figures.blocks_used == figures.saved_blocks < 200, "nothing was copied twice"


def test_who_gives_way_is_not_computed_again() -> None:
    outputs, computed = [], []
    for host_blocks in (0, 200):
        to = talk(host_blocks=host_blocks)
        for i in range(5):
            to.say(str(i), prompt(i, 112), 150)  # seven blocks, and sixteen in the end, of forty
        to.finish()
        assert to.preemptions > 1
        outputs.append(to.output)
        computed.append(to.computed)
    assert outputs[0] == outputs[1]
    assert computed[1] - 5 * 112 < (computed[0] - 5 * 112) / 2, computed


def test_whoever_waits_for_the_host_is_passed() -> None:
    to = talk(open_copier=late_by(10**9))
    to.say("long", prompt(1, 320), 1)
    to.finish()
    to.say("other", prompt(2, 600), 1)
    to.finish()
    assert to.figures.blocks_used > 20
    to.say("long again", prompt(1, 320), 8)
    to.say("short", prompt(3, 30), 8)
    for _ in range(8):
        to.step()
    assert len(to.output["short"]) == 8
    assert to.output["long again"] == []
    to.finish()
    assert len(to.output["long again"]) == 8
    figures = to.figures
    assert figures.host_hit_tokens + figures.device_hit_tokens == 304
    assert figures.host_hit_tokens == 16 * figures.fetched_blocks > 200


def test_whoever_leaves_meanwhile_leaves_nothing_behind(copier: OpenCopier) -> None:
    to = talk(open_copier=copier)
    dice = random.Random(5)
    for number in range(60):
        to.say(f"r{number}", prompt(number % 7, 250), 30)
        for _ in range(dice.randrange(12)):
            to.step()
        if dice.random() < 0.4:
            to.engine.handle(Drop(RequestId(f"r{dice.randrange(number + 1)}"), E0))
    to.finish()
    assert to.figures.saved_blocks
    alone = talk(host_blocks=0)
    for number in (58, 59):
        alone.say(f"r{number}", prompt(number % 7, 250), 30)
        alone.finish()
        assert alone.output[f"r{number}"][: len(to.output[f"r{number}"])] == to.output[f"r{number}"]


def test_an_engine_without_work_saves_what_rests_and_then_sleeps() -> None:
    to = talk()
    to.say("a", prompt(1, 500), 1)
    to.finish()
    assert to.figures.saved_blocks == 31
    assert not to.engine.has_work


@pytest.mark.parametrize("asked_max", [0, 4])
def test_tokens_are_those_of_transformers_while_requests_give_way_and_come_back(
    demo_model: Path,
    reference: Callable[..., list[int]],
    asked_max: int,
) -> None:
    config = EngineConfig(
        block_tokens=8,
        kv_blocks=40,
        host_kv_blocks=120,
        step_tokens_max=64,
        admission="aggressive",
        start_within_s=1e9,
    )
    runner = ModelRunner.load(ModelConfig(path=str(demo_model), dtype="float32"), config)
    to = Talk(Engine(runner, config, ManualClock(), late_by(asked_max)))
    prompts = [prompt(i, 90) for i in range(4)]
    for turn in range(3):
        for i, words in enumerate(prompts):
            to.say(f"{i}.{turn}", words, 40, temperature=i % 2, seed=i)
        to.finish()
        for i, words in enumerate(prompts):
            output = to.output[f"{i}.{turn}"]
            assert output == reference(words, 40, temperature=i % 2, seed=i)
            words += output[:10]
    assert to.preemptions
    assert to.figures.host_hit_tokens > 100
