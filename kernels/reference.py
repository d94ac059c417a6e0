"""The operations in plain torch: the definitions that faster kernels are checked against, and the fallback on any device.

Legend: N query rows of all requests, H query heads, G key/value heads, D head dim, B pages, T tokens of a page,
S positions of one request, R requests. In norms D is any last axis. A name's suffix is its shape.
"""

import numpy as np
import torch
from torch.nn import functional as F

from tercet.kernels.packed_kv import SCALE_BYTES, Codes, check
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule


def paged_attention(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: PagedBatch,
    rule: SoftmaxRule,
) -> torch.Tensor:
    """Writes the rows' keys and values into their pages, then attends; returns `[N, H, D]`.

    Requests with one row (decoding) are served together, padded to the longest; the others one by one.
    """
    device = q_NHD.device
    row_pages = torch.from_numpy(batch.row_pages).to(device, torch.long)
    row_slots = torch.from_numpy(batch.positions % batch.page_tokens).to(device, torch.long)
    pages_B2GTD[row_pages, 0, :, row_slots] = k_NGD
    pages_B2GTD[row_pages, 1, :, row_slots] = v_NGD
    out_NHD = torch.empty_like(q_NHD, memory_format=torch.contiguous_format)
    single = np.flatnonzero(batch.lengths == 1)
    if len(single):
        rows = torch.from_numpy(batch.query_starts[single]).to(device, torch.long)
        q_R1HD = q_NHD[rows, None]
        out_NHD[rows] = _attend(q_R1HD, pages_B2GTD, batch, single, rule)[:, 0]
    for request in np.flatnonzero(batch.lengths != 1):
        run = slice(batch.query_starts[request], batch.query_starts[request + 1])
        only = np.array([request])
        out_NHD[run] = _attend(q_NHD[None, run], pages_B2GTD, batch, only, rule)[0]
    return out_NHD


def rms_norm(x_ND: torch.Tensor, scale_D: torch.Tensor, eps: float) -> torch.Tensor:
    """`x / sqrt(mean(x²) + eps) * scale` over the last axis, computed in fp32."""
    wide_ND = x_ND.float()
    factor_N1 = torch.rsqrt(wide_ND.pow(2).mean(-1, keepdim=True) + eps)
    return (wide_ND * factor_N1 * scale_D).to(x_ND.dtype)


def rotary(
    x_NHD: torch.Tensor, positions_N: torch.Tensor, cos_sin_S2F: torch.Tensor
) -> torch.Tensor:
    """Feature f of the first 2F turned with feature f + F by the row's angle, computed in fp32."""
    cos_N1F, sin_N1F = cos_sin_S2F[positions_N, None].chunk(2, dim=-1)
    pairs, dim = cos_N1F.shape[-1], x_NHD.shape[-1]
    x_NHF, y_NHF, rest = torch.split(x_NHD.float(), [pairs, pairs, dim - 2 * pairs], dim=-1)
    turned = (x_NHF * cos_N1F - y_NHF * sin_N1F, y_NHF * cos_N1F + x_NHF * sin_N1F, rest)
    return torch.cat(turned, dim=-1).to(x_NHD.dtype)


def packed_linear(
    x_MK: torch.Tensor, packed: torch.Tensor, bias_N: torch.Tensor | None, columns: int
) -> torch.Tensor:
    """`x W^T + bias` for a weight packed as `[panels, K / s, panel, s]`, computed in fp32."""
    weight_NK = packed.transpose(1, 2).flatten(2).flatten(0, 1)[:columns]
    return F.linear(x_MK.float(), weight_NK.float(), bias_N).to(x_MK.dtype)


def pack_kv(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
) -> None:
    """Each group divided by its scale, so that its largest element becomes the largest code. See `packed_kv`."""
    groups, _ = check(pages_BGE, blocks_N, packed_NX)
    x_NGE = pages_BGE[blocks_N].float()
    most_NG1 = x_NGE.abs().amax(-1, keepdim=True)
    scale_NG1 = torch.where(most_NG1 > 1e-30, most_NG1 * (1 / codes.largest), 0.0)
    inverse_NG1 = torch.where(scale_NG1 > 0, 1 / scale_NG1, 0.0)
    y_NGE = (x_NGE * inverse_NG1).clamp(-codes.largest, codes.largest)
    code_NGE = (
        y_NGE.round().to(torch.int8) if codes is Codes.INT8 else y_NGE.to(torch.float8_e4m3fn)
    )
    packed_NX[:, : SCALE_BYTES * groups] = scale_NG1.flatten(1).view(torch.uint8)
    packed_NX[:, SCALE_BYTES * groups :] = code_NGE.flatten(1).view(torch.uint8)


def unpack_kv(
    pages_BGE: torch.Tensor, blocks_N: torch.Tensor, packed_NX: torch.Tensor, codes: Codes
) -> None:
    """The inverse, as far as one byte an element can tell."""
    groups, elements = check(pages_BGE, blocks_N, packed_NX)
    scale_NG = packed_NX[:, : SCALE_BYTES * groups].contiguous().view(torch.float32)
    kind = torch.int8 if codes is Codes.INT8 else torch.float8_e4m3fn
    code_NGE = packed_NX[:, SCALE_BYTES * groups :].contiguous().view(kind)
    x_NGE = code_NGE.view(-1, groups, elements).float() * scale_NG[..., None]
    pages_BGE[blocks_N] = x_NGE.to(pages_BGE.dtype)


class ReferenceKvCodec:
    """A `KvCodec` of the two."""

    pack = staticmethod(pack_kv)
    unpack = staticmethod(unpack_kv)


def _attend(
    q_RNHD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    batch: PagedBatch,
    requests: np.typing.NDArray[np.intp],
    rule: SoftmaxRule,
) -> torch.Tensor:
    """Requests with equally many rows, together; returns `[R, N, H, D]`."""
    device, heads_kv = q_RNHD.device, pages_B2GTD.shape[2]
    count, rows, heads, dim = q_RNHD.shape
    ends = batch.contexts[requests] + rows
    tables = batch.tables[requests, : -(-int(ends.max()) // batch.page_tokens)]
    kv = pages_B2GTD[torch.from_numpy(tables).to(device, torch.long)].float()
    k_RGSD, v_RGSD = kv.permute(2, 0, 3, 1, 4, 5).flatten(3, 4).unbind(0)
    q_RGMD = q_RNHD.float().transpose(1, 2).reshape(count, heads_kv, -1, dim)  # M: the group's rows
    scores = (q_RGMD @ k_RGSD.mT * rule.scale).view(count, heads, rows, -1)
    if rule.softcap:
        scores = rule.softcap * torch.tanh(scores / rule.softcap)
    at = torch.from_numpy(ends).to(device)[:, None] - rows + torch.arange(rows, device=device)
    seen = torch.arange(scores.shape[-1], device=device)
    visible = seen <= at[..., None]
    if rule.window:
        visible &= seen > at[..., None] - rule.window
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    if rule.sinks is not None:
        sinks = rule.sinks.float().view(1, -1, 1, 1).expand(count, -1, rows, 1)
        weights = torch.cat([scores, sinks], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    out_RGMD = weights.view(count, heads_kv, -1, weights.shape[-1]) @ v_RGSD
    return out_RGMD.view(count, heads, rows, dim).transpose(1, 2).to(q_RNHD.dtype)
