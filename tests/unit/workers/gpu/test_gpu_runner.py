"""An engine over the GPU's runner says what one over the CPU's says, though its device draws and is a step behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tercet.clock import ManualClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.checkpoint import Checkpoint
from tercet.workers.engine import Engine
from tercet.workers.events import Event, Expose, Freeze, Held, Run, Said, Thaw
from tercet.workers.gpu import attention_step
from tercet.workers.gpu.decoder import buckets
from tercet.workers.gpu.gpu_runner import GpuRunner
from tercet.workers.model_runner import ModelRunner
from tercet.workers.runner import Runner, Slice

ENGINE = EngineConfig(block_tokens=16, kv_blocks=12, step_tokens_max=16, running_max=4)
SAMPLINGS = {
    "greedy": Sampling(max_tokens=5),
    "warm": Sampling(max_tokens=2, temperature=1.1, top_p=0.9, top_k=20, min_p=0.01, seed=-5),
    "penalised": Sampling(max_tokens=2, temperature=0.7, presence_penalty=1.0, seed=3),
}

Open = Callable[..., tuple[GpuRunner, Checkpoint]]


@pytest.fixture(scope="module")
def path(save_family: Callable[..., Path]) -> Path:
    return save_family("qwen3")


class Conversation:
    """An engine and what it said."""

    def __init__(self, runner: Runner) -> None:
        self.engine = Engine(runner, ENGINE, ManualClock())
        self.events: list[Event] = []

    def run(self, name: str) -> None:
        prompt = [(5 * i + len(name)) % 48 for i in range(13)]
        self.engine.handle(
            Run(RequestSpec(RequestId(name), prompt, SAMPLINGS[name]), Epoch(0), "f")
        )

    def step(self) -> None:
        self.events += self.engine.step()
        self.engine.check_integrity()

    def drive(self) -> None:
        while self.engine.has_work:
            self.step()

    def output(self, name: str) -> list[int]:
        said = [e.message for e in self.events if isinstance(e, Said)]
        tokens = [m for m in said if isinstance(m, Tokens) and m.request == name]
        return [token for message in tokens for token in message.tokens]


def test_an_engine_says_what_it_says_on_a_cpu(path: Path, open_runner: Open) -> None:
    """One comes later than the others, is frozen amid a step, and runs on."""
    on_cpu = Conversation(ModelRunner.load(ModelConfig(path=str(path)), ENGINE))
    for name in SAMPLINGS:
        on_cpu.run(name)
    on_cpu.drive()
    runner, _ = open_runner(path)
    here = Conversation(runner)
    here.run("greedy")
    while len(here.output("greedy")) < 2:
        here.step()
    here.run("warm")
    here.step()
    here.engine.handle(Expose(RequestId("greedy"), Epoch(0), 1))
    here.engine.handle(Freeze(RequestId("greedy"), Epoch(0)))
    here.run("penalised")
    here.step()
    assert any(isinstance(event, Held) for event in here.events)
    here.engine.handle(Thaw(RequestId("greedy"), Epoch(0), "f"))
    here.drive()
    for name in SAMPLINGS:
        assert here.output(name) == on_cpu.output(name)


def test_a_step_is_fed_with_the_token_that_only_the_device_has(
    path: Path, open_runner: Open
) -> None:
    runner, _ = open_runner(path)
    greedy, blocks = Sampling(), [2, 5]
    prompt = list(range(3, 12))
    first = runner.launch([Slice(prompt, 0, blocks, True, 1)], [greedy])
    second = runner.launch([Slice([], 9, blocks, True, 1, fed=True)], [greedy])
    mixed = [Slice([], 10, blocks, True, 1, fed=True), Slice(prompt, 0, [7], True, 2)]
    third = runner.launch(mixed, [greedy, greedy])
    tokens = [first.wait()[0], second.wait()[0], third.wait()[0]]
    assert third.wait()[1] == tokens[0]
    known = [*prompt, *(token for token in tokens[:2] if token is not None)]
    logits = runner.forward([Slice(known, 0, [1, 3], True, 3)])
    assert int(logits.argmax()) == tokens[2]


def test_prompts_without_anything_before_them_are_read_from_where_they_were_made(
    path: Path, open_runner: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the same bits, beside a decode; what comes after finds the same keys in the pages."""
    prompts = [[(7 * i + j) % 48 for i in range(9 + j)] for j in range(2)]
    said = []
    for rows_min in (1024, 8):
        monkeypatch.setattr(attention_step, "FRESH_ROWS_MIN", rows_min)
        runner, _ = open_runner(path)
        runner.forward([Slice([5, 9], 0, [7], False, 0)])
        slices = [Slice(prompts[j], 0, [2 * j, 2 * j + 1], True, j + 1) for j in range(2)]
        first = runner.forward([Slice([4], 2, [7], True, 0), *slices])
        after = [Slice([3], 9 + j, [2 * j, 2 * j + 1], True, j + 1) for j in range(2)]
        said.append(torch.cat([first, runner.forward(after)]))
    assert torch.equal(said[0], said[1])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_logits_that_are_not_numbers_give_no_token(path: Path, open_runner: Open) -> None:
    runner, _ = open_runner(path)
    runner.kv.tensor[4] = torch.nan
    parts = [Slice([5], 15, [4], True, 1), Slice([6], 0, [1], True, 2)]
    spoilt, fine = runner.launch(parts, [Sampling(), Sampling()]).wait()
    assert spoilt is None
    assert fine is not None


def test_steps_are_made_for_few_sizes() -> None:
    assert buckets(1) == [1]
    assert buckets(4) == [1, 2, 4]
    assert buckets(20) == [1, 2, 4, 8, 16, 20]
