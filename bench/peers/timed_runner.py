"""A runner that computes nothing and takes the time a model would: everything around it is the real worker.

Its KV blocks are bytes nobody reads, so it cannot notice a wrong one; `tercet.workers.toy_runner` is for that.
"""

import threading
import time
from collections.abc import Sequence

import torch

from tercet.config import EngineConfig
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.runner import BetweenLayers, Slice, go_on
from timing import Timing

CONTEXT_TOKENS_MAX = 2**17


class StepClock:
    """The machine's clock; on the engine's thread only steps take time, and exactly what they should.

    So the latency model that the worker fits and reports is that of the model played, and not of a machine that wakes
    sleepers late.
    """

    def __init__(self) -> None:
        self._engine: int | None = None
        self._stepped_s = 0.0

    def now_s(self) -> float:
        on_engine = threading.get_ident() == self._engine
        return self._stepped_s if on_engine else time.monotonic()

    def belong_to_this_thread(self) -> None:
        self._engine = threading.get_ident()

    def step(self, seconds: float) -> None:
        self._stepped_s += seconds


class TimedRunner:
    """Every token it draws is number 0. Must be made on the engine's thread."""

    def __init__(
        self, config: EngineConfig, timing: Timing, vocab_size: int, clock: StepClock
    ) -> None:
        geometry = KvGeometry(1, 1, 1, config.block_tokens, torch.float32)
        self.kv = KvPool(geometry, config.kv_blocks)
        self.vocab_size = vocab_size
        self.context_tokens_max = CONTEXT_TOKENS_MAX
        self.eos_token_ids: frozenset[int] = frozenset()
        self.compat = "timed"
        self._timing, self._clock = timing, clock
        self._clock.belong_to_this_thread()
        self._logits = torch.zeros((config.running_max, vocab_size))
        self._end_s = 0.0
        self._unfinished = False

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        """Sleeps for the prompt tokens, or for one decode step if that is longer: decodes ride along, as in the mock worker.

        A prompt's steps follow each other without a gap, so that a machine which wakes sleepers late is late once a prompt,
        as it is for the mock worker, and not once a step.
        """
        prompt_tokens = sum(len(part.tokens) for part in slices if len(part.tokens) > 1)
        decodes = any(len(part.tokens) == 1 for part in slices)
        step_s = max(
            prompt_tokens * self._timing.prefill_s, self._timing.decode_step_s if decodes else 0.0
        )
        now_s = time.monotonic()
        self._end_s = step_s + (self._end_s if self._unfinished else now_s)
        self._unfinished = not all(part.sample for part in slices)
        self._clock.step(step_s)
        time.sleep(max(0.0, self._end_s - now_s))
        return self._logits[: sum(part.sample for part in slices)]
