"""Followers compute with us, end with us, and do not end unnoticed."""

import os
import queue
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tercet.cluster.process_tree import descendants
from tercet.config import EngineConfig, ModelConfig
from tercet.errors import ModelUnsupported
from tercet.workers.parallel.crew import Crew
from tercet.workers.runner import RunnerLost, Slice

ENGINE = EngineConfig(block_tokens=4, kv_blocks=64)


@contextmanager
def crew(lost) -> Iterator[Crew]:
    """Whatever happens, no process is left."""
    crew = Crew(2, "w", lost)
    try:
        yield crew
    finally:
        crew.stop()
        assert not followers()


def followers() -> set[int]:
    return {each.pid for each in descendants(os.getpid()) if "workers.parallel" in each.command}


def test_a_follower_computes_until_it_is_killed_and_then_nothing_does(save, generate):
    path, model = save("qwen3", head_dim=24)
    lost: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
    with crew(lost.put) as ranks:
        runner = ranks.load(ModelConfig(path=str(path)), ENGINE)
        assert not runner.kv.tensor.any(), "the trial has left something"
        prompt = [5, 17, 3, 99, 4, 6, 7]
        log, start = list(prompt), 0
        for _ in range(10):
            logits = runner.forward([Slice(log[start:], start, list(range(8)), True)])
            start = len(log)
            log.append(int(logits[0].argmax()))
        assert log[len(prompt) :] == generate(model, prompt)
        (pid,) = followers()
        os.kill(pid, signal.SIGKILL)
        assert isinstance(lost.get(timeout=60), RunnerLost)
        with pytest.raises(RunnerLost):
            runner.forward([Slice([1], start, list(range(8)), True)])


def test_what_keeps_a_model_from_loading_is_said_and_nothing_stays(tmp_path: Path):
    with crew(print) as ranks, pytest.raises(ModelUnsupported, match="not a checkpoint directory"):
        ranks.load(ModelConfig(path=str(tmp_path)), ENGINE)
