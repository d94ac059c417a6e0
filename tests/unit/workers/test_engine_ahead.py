"""An engine that is a step ahead of its device: nobody can tell, whatever happens meanwhile."""

from collections.abc import Sequence

import pytest
import torch

from tercet.clock import ManualClock
from tercet.config import EngineConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Failed, Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import (
    Drop,
    DropOwner,
    Ended,
    Event,
    Expose,
    Freeze,
    Held,
    Release,
    Reserve,
    Reserved,
    Run,
    Said,
    Thaw,
)
from tercet.workers.late_runner import LateRunner
from tercet.workers.runner import BetweenLayers, Slice, go_on
from tercet.workers.toy_runner import ToyRunner

E0, E1 = Epoch(0), Epoch(1)
A, B, C = RequestId("a"), RequestId("b"), RequestId("c")
CONFIG = EngineConfig(block_tokens=4, kv_blocks=24, step_tokens_max=8)


class Counted(ToyRunner):
    """Knows how many steps were computed; the one numbered `fails_at` is not."""

    steps, fails_at = 0, -1

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        self.steps += 1
        if self.steps == self.fails_at:
            raise RuntimeError("the device fell off the bus")
        return super().forward(slices, between_layers)


def make_engine(config: EngineConfig = CONFIG, *, late: bool = True) -> tuple[Engine, Counted]:
    runner = Counted(config)
    return Engine(LateRunner(runner) if late else runner, config, ManualClock()), runner


def run(request: RequestId, max_tokens: int = 12, **sampling: object) -> Run:
    prompt = [ord(request[0]) % 60, *range(1, 10)]
    return Run(RequestSpec(request, prompt, Sampling(max_tokens=max_tokens, **sampling)), E0, "f")


def drive(engine: Engine) -> list[Event]:
    events: list[Event] = []
    for _ in range(500):
        if not engine.has_work:
            return events
        events += engine.step()
        engine.check_integrity()
    raise AssertionError("the engine spins")


def output(events: list[Event], request: RequestId = A) -> list[int]:
    said = [e.message for e in events if isinstance(e, Said) and isinstance(e.message, Tokens)]
    return [token for m in said if m.request == request for token in m.tokens]


def alone(command: Run) -> list[int]:
    engine, _ = make_engine(late=False)
    engine.handle(command)
    return output(drive(engine), command.spec.id)


def everything_is_free(engine: Engine) -> bool:
    load = engine.load()
    return (load.running, load.holding, load.blocks_used, load.quarantined_blocks) == (0, 0, 0, 0)


def until_decoding(engine: Engine) -> list[Event]:
    """Steps until the first tokens are said; then another step is under way."""
    events: list[Event] = []
    while not output(events):
        events += engine.step()
    return events


def test_the_next_step_is_launched_before_the_tokens_of_this_one_are_known() -> None:
    engine, runner = make_engine()
    engine.handle(run(A, 3))
    steps = []
    while engine.has_work:
        said = output(engine.step())
        steps.append((runner.steps, len(said)))
    assert steps == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 1)], "two of prefill, two of decoding"


def test_a_limit_costs_no_step_too_many_and_an_end_token_one() -> None:
    whole = alone(run(A))
    engine, runner = make_engine()
    engine.handle(run(A, len(whole)))
    drive(engine)
    assert runner.steps == 2 + len(whole) - 1
    at = next(i for i, token in enumerate(whole) if token not in whole[:i] and i > 2)
    engine, runner = make_engine()
    engine.handle(run(A, stop_token_ids=(whole[at],)))
    events = drive(engine)
    assert output(events) == whole[: at + 1]
    assert runner.steps == 2 + at + 1
    assert events[-1] == Ended(A, E0)


def test_a_request_that_is_over_keeps_its_blocks_until_its_last_step_is() -> None:
    whole = alone(run(A))
    engine, _ = make_engine()
    engine.handle(run(A, stop_token_ids=(whole[0],)))
    said = until_decoding(engine)
    assert Ended(A, E0) not in said
    assert engine.load().blocks_used == 3
    assert engine.step() == [Ended(A, E0)]
    assert everything_is_free(engine)


@pytest.mark.parametrize("command", [Drop(A, E0), DropOwner("f")])
def test_who_is_cancelled_amid_a_step_writes_into_nobody_elses_blocks(
    command: Drop | DropOwner,
) -> None:
    engine, runner = make_engine()
    engine.handle(run(A))
    until_decoding(engine)
    engine.handle(command)
    engine.handle(Reserve(run(B).spec, E1, "g"))
    (reserved,) = [e for e in engine.step() if isinstance(e, Reserved)]
    runner.kv.tensor[list(reserved.blocks)] = 7.0  # what a pull brings
    events = drive(engine)
    assert not output(events)
    assert bool((runner.kv.tensor[list(reserved.blocks)] == 7.0).all())
    engine.handle(Drop(B, E1))
    drive(engine)
    assert everything_is_free(engine)


def test_who_is_frozen_amid_a_step_has_its_token_and_can_run_on() -> None:
    engine, _ = make_engine()
    engine.handle(run(A))
    events = until_decoding(engine)
    engine.handle(Expose(A, E0, 1))
    events += engine.step()
    engine.handle(Freeze(A, E0))
    events += drive(engine)
    held = next(event for event in events if isinstance(event, Held))
    assert list(held.output) == output(events)
    assert held.tokens == 10 + len(held.output) - 1
    engine.handle(Thaw(A, E0, "f"))
    events += drive(engine)
    assert output(events) == alone(run(A))
    assert everything_is_free(engine)


def test_requests_that_the_host_draws_for_run_beside_others() -> None:
    commands = [
        run(A, temperature=1.0, seed=3),
        run(B, temperature=1.2, seed=5, presence_penalty=1.0),
        run(C, 7, logprobs=2),
    ]
    engine, _ = make_engine()
    for command in commands:
        engine.handle(command)
    events = drive(engine)
    for command in commands:
        assert output(events, command.spec.id) == alone(command)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_step_that_fails_takes_those_along_that_the_next_one_had(step: int) -> None:
    engine, runner = make_engine()
    runner.fails_at = step
    engine.handle(run(A))
    engine.handle(run(B))
    events = drive(engine)
    failed = {
        e.message.request for e in events if isinstance(e, Said) and isinstance(e.message, Failed)
    }
    assert failed
    for request in {A, B} - failed:
        assert output(events, request) == alone(run(request))
    assert sum(isinstance(e, Ended) for e in events) == 2
    engine.handle(Run(run(A).spec, Epoch(2), "f"))
    assert output(drive(engine)) == alone(run(A))


def test_a_hand_off_stops_with_its_first_token() -> None:
    engine, runner = make_engine()
    command = run(A)
    engine.handle(Run(command.spec, E0, "f", hand_off=True))
    events = drive(engine)
    held = events[-1]
    assert isinstance(held, Held)
    assert list(held.output) == alone(command)[:1]
    assert runner.steps == 2
    engine.handle(Release(A, E0))
    drive(engine)
    assert everything_is_free(engine)
