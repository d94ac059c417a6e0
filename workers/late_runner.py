"""A runner whose device is as late as can be: what was launched is computed when somebody waits for it, or for what came after.

For tests of everything that goes on while a device computes. Around a `ToyRunner`, blocks that were given away too early, or
a token that was fed to the wrong request, change the output.
"""

from collections import deque
from collections.abc import Sequence as Rows

import torch

from tercet.ids import FIRST_EPOCH, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.kv_pool import KvPool
from tercet.workers.runner import BetweenLayers, Runner, Slice, go_on
from tercet.workers.sampler import Sampler
from tercet.workers.sequence import Sequence


class LateRunner:
    """Computes with another runner, and draws with the host's sampler. See `DrawingRunner`."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._sampler = Sampler(runner.eos_token_ids)
        self._launched: deque[LateDraws] = deque()
        self._drawn: dict[int, int] = {}
        """The token that the latest launch has drawn for each request."""
        self.kv: KvPool = runner.kv
        self.vocab_size = runner.vocab_size
        self.context_tokens_max = runner.context_tokens_max
        self.eos_token_ids = runner.eos_token_ids
        self.compat = runner.compat

    def forward(self, slices: Rows[Slice], between_layers: BetweenLayers = go_on) -> torch.Tensor:
        """Nothing comes between."""
        self._catch_up(None)
        return self._runner.forward(slices)

    def launch(self, slices: Rows[Slice], samplings: Rows[Sampling]) -> "LateDraws":
        copies = [
            Slice(list(p.tokens), p.start, list(p.blocks), p.sample, p.request, p.fed)
            for p in slices
        ]
        draws = LateDraws(self, copies, list(samplings))
        self._launched.append(draws)
        return draws

    def compute(self, upto: "LateDraws") -> None:
        """Everything up to this launch."""
        if upto in self._launched:
            self._catch_up(upto)

    def _catch_up(self, upto: "LateDraws | None") -> None:
        while self._launched:
            draws = self._launched.popleft()
            try:
                draws.tokens = self._draw(draws.slices, draws.samplings)
            except Exception as error:
                draws.error = error
            if draws is upto:
                return

    def _draw(self, slices: list[Slice], samplings: list[Sampling]) -> list[int | None]:
        for part in slices:
            if part.fed:
                part.tokens.append(self._drawn.get(part.request, 0))
        logits = self._runner.forward(slices)
        sampled = [part for part in slices if part.sample]
        rows = [_log(p.end - p.fed, s) for p, s in zip(sampled, samplings, strict=True)]
        tokens = [drawn.token for drawn in self._sampler.draw(logits, rows)] if rows else []
        self._drawn = {p.request: t or 0 for p, t in zip(sampled, tokens, strict=True)}
        return tokens


class LateDraws:
    """See `Draws`."""

    def __init__(self, runner: LateRunner, slices: list[Slice], samplings: list[Sampling]) -> None:
        self._runner, self.slices, self.samplings = runner, slices, samplings
        self.tokens: list[int | None] = []
        self.error: Exception | None = None

    def wait(self) -> list[int | None]:
        self._runner.compute(self)
        if self.error is not None:
            raise self.error
        return self.tokens


def _log(length: int, sampling: Sampling) -> Sequence:
    """As much of a sequence as an unshaped draw depends on."""
    tokens = [0] * length
    spec = RequestSpec(RequestId("late"), tokens, sampling)
    return Sequence(spec, FIRST_EPOCH, "", 0, tokens)
