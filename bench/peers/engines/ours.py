"""Tercet's engine, without workers or links around it."""

import itertools

from orders import Outputs, Run, serve
from tercet import __version__
from tercet.clock import MonotonicClock
from tercet.config import EngineConfig, ModelConfig
from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.wire import Tokens
from tercet.workers.engine import Engine
from tercet.workers.events import Run as RunCommand
from tercet.workers.events import Said
from tercet.workers.model_runner import ModelRunner


def load(folder: str, dtype: str, threads: int) -> tuple[Run, str]:
    config = EngineConfig(kv_blocks=1024, running_max=32, threads=threads)
    engine = Engine(
        ModelRunner.load(ModelConfig(path=folder, dtype=dtype), config), config, MonotonicClock()
    )
    numbers = itertools.count()

    def run(prompts: list[list[int]], output_tokens: int) -> Outputs:
        outputs: dict[RequestId, list[int]] = {}
        for prompt in prompts:
            request = RequestId(f"r{next(numbers)}")
            outputs[request] = []
            sampling = Sampling(max_tokens=output_tokens, ignore_eos=True)
            spec = RequestSpec(request, prompt, sampling)
            engine.handle(RunCommand(spec, FIRST_EPOCH, owner="bench"))
        while engine.has_work:
            for event in engine.step():
                if isinstance(event, Said) and isinstance(event.message, Tokens):
                    outputs[event.message.request] += event.message.tokens
        return list(outputs.values())

    return run, __version__


serve(load)
