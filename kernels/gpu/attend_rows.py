"""What every attention kernel here computes, in plain torch: the common part of their twins.

Legend: N rows of one request, H query heads, G key/value heads, D head dim, S positions, R requests, W places of a table.
"""

import torch

from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.softmax_rule import SoftmaxRule


def attend_rows(
    q_NHD: torch.Tensor, k_SGD: torch.Tensor, v_SGD: torch.Tensor, rule: SoftmaxRule
) -> torch.Tensor:
    """The rows are the last N of S positions; computes in fp32, returns `[N, H, D]` in the type of `q_NHD`."""
    rows, heads, _ = q_NHD.shape
    seen, heads_kv, _ = k_SGD.shape
    k_HSD, v_HSD = (
        x.float().repeat_interleave(heads // heads_kv, dim=1).transpose(0, 1)
        for x in (k_SGD, v_SGD)
    )
    scores_HNS = q_NHD.float().transpose(0, 1) @ k_HSD.mT * rule.scale
    if rule.softcap:
        scores_HNS = rule.softcap * torch.tanh(scores_HNS / rule.softcap)
    at_N1 = torch.arange(seen - rows, seen, device=q_NHD.device)[:, None]
    key_S = torch.arange(seen, device=q_NHD.device)
    hidden_NS = key_S > at_N1
    if rule.window:
        hidden_NS |= key_S <= at_N1 - rule.window
    scores_HNS = scores_HNS.masked_fill(hidden_NS, -torch.inf)
    if rule.sinks is not None:
        sinks_HN1 = rule.sinks.float().view(-1, 1, 1).expand(-1, rows, 1)
        scores_HNS = torch.cat([scores_HNS, sinks_HN1], dim=-1)
    weights_HNS = scores_HNS.softmax(dim=-1)[..., :seen]
    return (weights_HNS @ v_HSD).transpose(0, 1).to(q_NHD.dtype)


def attend_paged_rows(
    q_NHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    scales: PageScales | None,
    batch: DeviceBatch,
    request: int,
    rule: SoftmaxRule,
) -> torch.Tensor:
    """The rows of one request of a batch, `q_NHD` being those of all."""
    begin, end = batch.query_starts_R1[request : request + 2].tolist()
    seen = int(batch.contexts_R[request]) + end - begin
    tokens = pages_B2GTD.shape[3]
    table = batch.tables_RW[request, : -(-seen // tokens)].long()
    kv_2SGD = pages_B2GTD[table].transpose(0, 1).transpose(2, 3).flatten(1, 2)[:, :seen].float()
    if scales is not None:
        kv_2SGD *= torch.stack([scales.k_G, scales.v_G])[:, None, :, None]
    return attend_rows(q_NHD[begin:end], kv_2SGD[0], kv_2SGD[1], rule)
