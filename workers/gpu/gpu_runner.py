"""The runner for a GPU: fused kernels, tokens drawn on the device, and decode steps that need no host.

Legend: N rows of all requests, R rows whose token is drawn.
"""

from collections.abc import Sequence

import numpy as np
import torch

from tercet.kernels.gpu.sampling import SamplingScratch, sample
from tercet.kernels.paged_batch import PagedBatch
from tercet.request import Sampling
from tercet.workers.checkpoint import Checkpoint
from tercet.workers.compat import compat_key
from tercet.workers.gpu import draw_rows
from tercet.workers.gpu.attention_step import AttentionPlan, AttentionStep
from tercet.workers.gpu.decoder import Decoder
from tercet.workers.gpu.draw_rows import upload
from tercet.workers.gpu.fused_model import FusedModel
from tercet.workers.gpu.landing import Landing
from tercet.workers.kv_pool import KvPool
from tercet.workers.runner import BetweenLayers, Slice, go_on


class GpuRunner:
    """See `DrawingRunner`. `open_gpu_runner` makes one; on a CPU it runs in Triton's interpreter."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: FusedModel,
        plan: AttentionPlan,
        kv: KvPool,
        rows_max: int,
    ) -> None:
        self.model, self._plan = model, plan
        self.kv = kv
        self.vocab_size = int(checkpoint.config.vocab_size)
        self.eos_token_ids = checkpoint.eos_token_ids
        self.context_tokens_max = checkpoint.context_tokens_max
        self.compat = compat_key(checkpoint.path, checkpoint.described, kv.geometry)
        model.bind(kv)
        page_tokens = kv.geometry.block_tokens
        self.decoder = Decoder(
            model,
            plan,
            rows_max=rows_max,
            places=-(-self.context_tokens_max // page_tokens),
            page_tokens=page_tokens,
            pool_blocks=kv.blocks,
            vocab=self.vocab_size,
            device=kv.device,
        )
        self._draws = draw_rows.draw_rows(rows_max, kv.device)
        self._scratch: SamplingScratch = self.decoder.scratch

    @torch.inference_mode()
    def forward(
        self, slices: Sequence[Slice], between_layers: BetweenLayers = go_on
    ) -> torch.Tensor:
        """See `Runner`; nothing comes between."""
        self.decoder.forget([part for part in slices if part.sample])
        return self._logits(slices).float()

    @torch.inference_mode()
    def launch(self, slices: Sequence[Slice], samplings: Sequence[Sampling]) -> Landing:
        """See `DrawingRunner`."""
        if self.decoder.fits(slices):
            return Landing(self.decoder.launch(slices, samplings))
        sampled = [part for part in slices if part.sample]
        logits_RV = self._logits(slices)
        if not sampled:
            return Landing(torch.empty(0, dtype=torch.int32, device=self.kv.device))
        draw_rows.write(self._draws, samplings)
        ends = upload(np.array([part.end for part in sampled], dtype=np.int64), self.kv.device)
        rows = draw_rows.first(self._draws, len(sampled), ends)
        token_R = sample(logits_RV, rows, self._scratch).token_R
        self.decoder.keep(sampled, token_R)
        return Landing(token_R)

    def _logits(self, slices: Sequence[Slice]) -> torch.Tensor:
        """`[R, vocabulary]` of any batch, in the model's type."""
        device = self.kv.device
        host = PagedBatch.of(
            [part.end - part.start for part in slices],
            [part.start for part in slices],
            [part.blocks for part in slices],
            self.kv.geometry.block_tokens,
        )
        last = host.query_starts[1:] - 1
        tokens_N = self._tokens(slices, last, host.rows)
        step = AttentionStep.of(self._plan, host, device)
        wanted = last[[part.sample for part in slices]].astype(np.int64)
        return self.model(tokens_N, step, upload(wanted, device))

    def _tokens(
        self, slices: Sequence[Slice], last: np.typing.NDArray[np.int32], rows: int
    ) -> torch.Tensor:
        """`[N]`; those that only the device knows are put in there."""
        known: list[int] = []
        for part in slices:
            known += part.tokens
            known += [0] * part.fed
        assert len(known) == rows, (len(known), rows)
        tokens_N = upload(np.array(known, dtype=np.int32), self.kv.device)
        fed = [i for i, part in enumerate(slices) if part.fed]
        if fed:
            at = upload(last[fed].astype(np.int64), self.kv.device)
            tokens_N[at] = self.decoder.last_tokens([slices[i] for i in fed])
        return tokens_N
