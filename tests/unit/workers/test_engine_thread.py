"""The engine in its own thread: events of a step in one piece, wakes by commands, ends when told, fails loudly."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator

import pytest

from tercet.clock import MonotonicClock
from tercet.config import EngineConfig
from tercet.ids import Epoch, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.engine import Engine, Outside
from tercet.workers.engine_thread import UNDELIVERED_STEPS_MAX, EngineStuck, EngineThread
from tercet.workers.events import Drop, Ended, Event, Run, Said
from tercet.workers.runner import BetweenLayers, Slice, go_on
from tercet.workers.toy_runner import ToyRunner

CONFIG = EngineConfig(kv_blocks=64)


def run(name: str, max_tokens: int = 5) -> Run:
    spec = RequestSpec(RequestId(name), [1, 2, 3], Sampling(max_tokens=max_tokens))
    return Run(spec, Epoch(0), "owner")


class Watched:
    """An engine thread and everything it delivered."""

    def __init__(self) -> None:
        self.steps: list[list[Event]] = []
        self.crashes: list[BaseException] = []
        self.changed = asyncio.Event()
        self.crashed = asyncio.Event()
        self.thread = EngineThread(self.open, self.deliver, self.crash, "test")
        self.sabotage: BaseException | None = None

    def open(self) -> Engine:
        if self.sabotage is not None:
            raise self.sabotage
        return Engine(ToyRunner(CONFIG), CONFIG, MonotonicClock())

    def crash(self, exc: BaseException) -> None:
        self.crashes.append(exc)
        self.crashed.set()

    def deliver(self, events: list[Event]) -> None:
        self.steps.append(events)
        self.changed.set()

    async def ended(self, count: int) -> None:
        async with asyncio.timeout(60):
            while sum(isinstance(e, Ended) for step in self.steps for e in step) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    watched = Watched()
    yield watched
    await watched.thread.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "engine test"]


async def test_requests_run_to_their_end_and_the_engine_sleeps(watched):
    await watched.thread.start()
    watched.thread.post(run("a"), run("b"))
    await watched.ended(2)
    assert not any(step == [] for step in watched.steps)
    tokens = [
        event.message
        for step in watched.steps
        for event in step
        if isinstance(event, Said) and isinstance(event.message, Tokens)
    ]
    assert sum(len(message.tokens) for message in tokens) == 10
    used_s = time.process_time()
    await asyncio.sleep(0.2)
    assert time.process_time() - used_s < 0.1, "an idle engine costs nothing"
    assert watched.thread.load.running == 0


async def test_both_requests_of_a_step_are_delivered_together(watched):
    await watched.thread.start()
    watched.thread.post(run("a"), run("b"))
    await watched.ended(2)
    last = [event for event in watched.steps[-1] if isinstance(event, Ended)]
    assert {event.request for event in last} == {"a", "b"}


async def test_a_drop_reaches_a_running_request(watched):
    await watched.thread.start()
    watched.thread.post(run("a", max_tokens=4000))
    await asyncio.sleep(0.05)
    watched.thread.post(Drop(RequestId("a"), Epoch(0)))
    await watched.ended(1)


async def test_the_engine_does_not_run_away_from_a_loop_that_is_busy(watched, monkeypatch):
    engine = await watched.thread.start()
    steps, step = itertools.count(), engine.step
    monkeypatch.setattr(engine, "step", lambda outside: (next(steps), step(outside))[1])
    watched.thread.post(run("a", max_tokens=500))
    time.sleep(1.0)  # noqa: ASYNC251 -- the loop is blocked on purpose
    assert next(steps) == UNDELIVERED_STEPS_MAX
    await watched.ended(1)
    assert len(watched.steps) == 500


async def test_an_engine_that_cannot_be_opened_fails_the_start(watched):
    watched.sabotage = ValueError("no such model")
    with pytest.raises(ValueError, match="no such model"):
        await watched.thread.start()


async def test_a_bug_in_the_engine_is_reported_and_ends_the_thread(watched, monkeypatch):
    engine = await watched.thread.start()

    def fail(outside: Outside) -> list[Event]:
        raise AssertionError("a block is lost")

    monkeypatch.setattr(engine, "step", fail)
    watched.thread.post(run("a"))
    async with asyncio.timeout(60):
        await watched.crashed.wait()
    assert str(watched.crashes[0]) == "a block is lost"


async def test_who_comes_amid_a_long_step_is_answered_before_it_ends(watched, monkeypatch):
    engine = await watched.thread.start()
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    come, answered = threading.Event(), threading.Event()
    forward = engine.runner.forward

    def slow_forward(slices: list[Slice], between_layers: BetweenLayers = go_on) -> object:
        """A long prompt stops before its first layer until somebody has come, and after its last one until that is said."""
        if between_layers is go_on:
            return forward(slices)
        loop.call_soon_threadsafe(entered.set)
        assert come.wait(10), "nobody came"
        logits = forward(slices, between_layers)
        assert answered.wait(10), "nobody was answered"
        return logits

    monkeypatch.setattr(engine.runner, "forward", slow_forward)
    long = RequestSpec(RequestId("long"), [1] * 400, Sampling(max_tokens=1))
    watched.thread.post(Run(long, Epoch(0), "owner"))
    await entered.wait()
    watched.thread.post(run("short", max_tokens=1))
    come.set()
    await watched.ended(1)
    assert [event.request for step in watched.steps for event in step if type(event) is Ended] == [
        "short"
    ]
    answered.set()
    await watched.ended(2)


async def test_only_the_step_it_is_in_counts_as_stuck(watched, monkeypatch):
    engine = await watched.thread.start()
    entered, leave, step = asyncio.Event(), threading.Event(), engine.step
    loop = asyncio.get_running_loop()

    def blocking_step(outside: Outside) -> list[Event]:
        loop.call_soon_threadsafe(entered.set)
        assert leave.wait(10)
        return step(outside)

    watched.thread.check_step(0.0)
    monkeypatch.setattr(engine, "step", blocking_step)
    watched.thread.post(run("a"))
    await entered.wait()
    watched.thread.check_step(60.0)
    with pytest.raises(EngineStuck, match=r"control\.step_timeout_s"):
        watched.thread.check_step(0.0)
    leave.set()
    await watched.ended(1)
    await asyncio.sleep(0.05)  # the step's last event is delivered before the thread sleeps
    watched.thread.check_step(0.0)
