"""The runner of a worker of several ranks: its own part, and followers that compute the same slices on theirs."""

from collections.abc import Sequence

import msgspec
import torch

from tercet.workers.model_runner import ModelRunner
from tercet.workers.parallel.orders import Compute, Share
from tercet.workers.parallel.pipe import Pipe
from tercet.workers.runner import BetweenLayers, RunnerLost, Slice, go_on


class ParallelRunner:
    """See `Runner`; `kv` is rank 0's part. All of it happens on one thread."""

    def __init__(self, own: ModelRunner, followers: Sequence[Pipe[None]]) -> None:
        self._own, self._followers = own, followers
        self.kv = own.kv
        self.vocab_size = own.vocab_size
        self.eos_token_ids = own.eos_token_ids
        self.context_tokens_max = own.context_tokens_max
        self.compat = own.compat

    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        """See `Runner`, but nobody comes between layers: ranks would have to stop at the same one.

        Raises RunnerLost whatever happens: ranks that are not at the same place never meet again.
        """
        shares = [Share(part.tokens, part.start, list(part.blocks)) for part in slices]
        order = msgspec.msgpack.encode(Compute(shares))
        try:
            for follower in self._followers:
                follower.send_encoded(order)
            return self._own.forward(slices)
        except Exception as exc:
            raise RunnerLost(f"the ranks have parted: {exc!r}") from exc
