"""Which requests a full worker gives away, and how it says so."""

import pytest

from tercet.clock import ManualClock
from tercet.config import EngineConfig
from tercet.ids import FIRST_EPOCH, Epoch, RequestId, WorkerId
from tercet.request import RequestSpec, Sampling
from tercet.wire import MoveWanted
from tercet.workers.engine import Engine
from tercet.workers.events import Expose, Relieve, Run, Said
from tercet.workers.relief import given_away
from tercet.workers.sequence import Phase, Sequence
from tercet.workers.toy_runner import ToyRunner

D1 = WorkerId("decode-1")


def spec(name: str, tokens: int, priority: int = 0) -> RequestSpec:
    sampling = Sampling(max_tokens=1000, ignore_eos=True)
    prompt = [(7 * position + tokens) % 50 for position in range(tokens)]
    return RequestSpec(RequestId(name), prompt, sampling, priority)


def running(name: str, tokens: int, priority: int = 0, *, decodes: bool = True) -> Sequence:
    one = spec(name, tokens, priority)
    sequence = Sequence(one, FIRST_EPOCH, "f", 0, list(one.prompt), phase=Phase.RUNNING)
    sequence.computed = tokens - 1 if decodes else 0
    return sequence


def names(sequences: list[Sequence]) -> list[str]:
    return [sequence.id for sequence in sequences]


@pytest.mark.parametrize(
    ("tokens", "chosen"),
    [(9, []), (10, ["s"]), (29, ["s"]), (30, ["s", "m"]), (1000, ["s", "m", "l"])],
)
def test_the_shortest_go_as_many_as_fit(tokens: int, chosen: list[str]) -> None:
    crowd = [running("l", 40), running("s", 10), running("m", 20), running("x", 50)]
    assert names(given_away(crowd, tokens)) == chosen


def test_the_unimportant_go_first() -> None:
    crowd = [running("gold", 10, 5), running("long", 90), running("bulk", 100, -1)]
    assert names(given_away(crowd, 120)) == ["bulk"]
    assert names(given_away(crowd, 195)) == ["bulk", "long"]


def test_who_prefills_is_being_moved_or_is_alone_stays() -> None:
    prefills, leaves = running("p", 10, decodes=False), running("e", 10)
    leaves.exposure = 1
    held = running("h", 10)
    held.phase = Phase.HELD
    assert given_away([prefills, leaves, held, running("r", 20)], 15) == []
    assert given_away([running("alone", 10)], 1000) == []
    assert given_away([], 1000) == []


def test_an_engine_asks_the_owners() -> None:
    config = EngineConfig(block_tokens=4, kv_blocks=64, step_tokens_max=64)
    engine = Engine(ToyRunner(config), config, ManualClock())
    for number, name in enumerate(("a", "b", "c")):
        engine.handle(Run(spec(name, 8 + number), Epoch(number), f"door-{name}"))
    for _ in range(3):
        engine.step()
    engine.handle(Expose(RequestId("a"), Epoch(0), 1))
    engine.handle(Relieve(1000, D1))
    said = [event for event in engine.step() if isinstance(event, Said)]
    wishes = [event for event in said if isinstance(event.message, MoveWanted)]
    assert wishes == [
        Said("door-b", MoveWanted(RequestId("b"), Epoch(1), D1)),
        Said("door-c", MoveWanted(RequestId("c"), Epoch(2), D1)),
    ]
    assert engine.load().running == 3, "they run on"


def test_a_prompt_that_finds_no_room_and_an_important_request_are_reported() -> None:
    config = EngineConfig(block_tokens=4, kv_blocks=16, step_tokens_max=64)
    engine = Engine(ToyRunner(config), config, ManualClock())
    engine.handle(Run(spec("a", 30, priority=2), Epoch(0), "f"))
    engine.step()
    assert (engine.load().head_tokens, engine.load().urgent) == (0, 1)
    engine.handle(Run(spec("long", 50), Epoch(0), "f"))
    engine.step()
    engine.step()
    assert (engine.load().waiting, engine.load().head_tokens) == (1, 50)
