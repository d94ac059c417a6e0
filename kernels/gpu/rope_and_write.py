"""Between a layer's QKV product and its attention, in one launch: norms of queries and keys, rotary positions, KV write.

Legend: N rows, H query heads, G key/value heads, D head dim, B pages, T tokens of a page, R requests, W places of a
block table, F rotated pairs of a head (the first 2F of its D features), S positions that have a rotation, A axes of a
position (one for text; time, height and width for what is seen).

Rotary positions are RoFormer's (Su et al., 2021) in the half-rotation layout of GPT-NeoX: feature f is rotated with
f + F. With several axes each pair turns by the position of its own axis, as in Qwen2-VL's M-RoPE. The twin is
`rope_and_write_twin`.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from tercet.kernels import reference
from tercet.kernels.gpu.page_scales import QUANTISED, PageScales
from tercet.kernels.kv_codec_triton import encode

HEADS_OF_A_PROGRAM = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """A model's rotary table, constant over its life."""

    cos_sin_S2F: torch.Tensor
    """fp32: the cosines of each position's F angles, then their sines, both with the model's factor."""
    axis_F: torch.Tensor | None = None
    """int32: which axis of a position turns each pair; None where positions have one axis."""


@dataclass(frozen=True, slots=True)
class HeadNorms:
    """Weights of the norms over D that queries and keys go through before they are rotated."""

    q_scale_D: torch.Tensor
    k_scale_D: torch.Tensor
    eps: float


@dataclass(frozen=True, slots=True)
class Places:
    """Where rows stand: row n is token `positions_N[n]` of request `requests_N[n]`. All int32, on the device.

    Its rotation is that of `turns_AN[:, n]`, each less than S. A row with a negative position stands for none: it is
    rotated, but writes nothing.
    """

    positions_N: torch.Tensor
    requests_N: torch.Tensor
    tables_RW: torch.Tensor
    turns_AN: torch.Tensor


@triton.jit
def _turned(source, norm, angle, known, eps, D: tl.constexpr, F: tl.constexpr, HALF: tl.constexpr,
            REST: tl.constexpr, NORM: tl.constexpr):  # fmt: skip
    """Heads at `source`, normed and rotated: features below F, their partners, and those that are left as they are."""
    pair = tl.arange(0, HALF)[None, :]
    rest = tl.arange(0, REST)[None, :]
    turns, stays = known & (pair < F), known & (rest < D - 2 * F)
    x = tl.load(source + pair, mask=turns, other=0.0).to(tl.float32)
    y = tl.load(source + F + pair, mask=turns, other=0.0).to(tl.float32)
    z = tl.load(source + 2 * F + rest, mask=stays, other=0.0).to(tl.float32)
    if NORM:
        squares = tl.sum(x * x, axis=1) + tl.sum(y * y, axis=1) + tl.sum(z * z, axis=1)
        factor = tl.rsqrt(squares / D + eps)[:, None]
        x *= factor * tl.load(norm + pair, mask=pair < F, other=0.0).to(tl.float32)
        y *= factor * tl.load(norm + F + pair, mask=pair < F, other=0.0).to(tl.float32)
        z *= factor * tl.load(norm + 2 * F + rest, mask=rest < D - 2 * F, other=0.0).to(tl.float32)
    cos = tl.load(angle, mask=pair < F, other=0.0)
    sin = tl.load(angle + F, mask=pair < F, other=0.0)
    return x * cos - y * sin, y * cos + x * sin, z


@triton.jit
def _coded(x, worth, heads, known, CODE: tl.constexpr):
    """Bytes for a page of codes; what is stored as it is stays fp32 until then."""
    if CODE == "plain":
        y = x
    else:
        y = encode(x / tl.load(worth + heads, mask=known, other=1.0), CODE == "fp8")
    return y


@triton.jit(do_not_specialize=["turn_axis", "table_row"])  # they change from batch to batch
def rope_kernel(
    q, k, v, out, pages, cos_sin, axes, turns, positions, requests, tables,
    q_scale, k_scale, k_worth, v_worth, eps,
    q_row, q_head, k_row, k_head, v_row, v_head, out_row, out_head,
    page_stride, value_offset, page_head, page_slot, turn_axis, table_row,
    H: tl.constexpr, G: tl.constexpr, D: tl.constexpr, F: tl.constexpr, T: tl.constexpr,
    HEADS: tl.constexpr, HALF: tl.constexpr, REST: tl.constexpr, WHOLE: tl.constexpr,
    AXES: tl.constexpr, NORM: tl.constexpr, CODE: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """A program takes a few heads of one row: of queries, or of keys together with their values."""
    n = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, HALF)[None, :]
    rest = tl.arange(0, REST)[None, :]
    if AXES:
        axis = tl.load(axes + pair, mask=pair < F, other=0)
        turn = tl.load(turns + axis.to(tl.int64) * turn_axis + n, mask=pair < F, other=0)
    else:
        turn = tl.load(turns + n)
    angle = cos_sin + turn.to(tl.int64) * (2 * F) + pair
    program = tl.program_id(1)
    if program < (H + HEADS - 1) // HEADS:
        heads = (program * HEADS + tl.arange(0, HEADS))[:, None]
        known = heads < H
        source = q + n * q_row + heads * q_head
        x, y, z = _turned(source, q_scale, angle, known, eps, D, F, HALF, REST, NORM)
        to = out + n * out_row + heads * out_head
        kind = out.dtype.element_ty
        tl.store(to + pair, x.to(kind), mask=known & (pair < F))
        tl.store(to + F + pair, y.to(kind), mask=known & (pair < F))
        tl.store(to + 2 * F + rest, z.to(kind), mask=known & (rest < D - 2 * F))
        return
    heads = ((program - (H + HEADS - 1) // HEADS) * HEADS + tl.arange(0, HEADS))[:, None]
    position = tl.load(positions + n)
    known = heads < tl.where(position >= 0, G, 0)
    request = tl.load(requests + n).to(tl.int64)
    page = tl.load(tables + request * table_row + position // T, mask=position >= 0, other=0)
    to = pages + page.to(tl.int64) * page_stride + heads * page_head + (position % T) * page_slot
    source = k + n * k_row + heads * k_head
    x, y, z = _turned(source, k_scale, angle, known, eps, D, F, HALF, REST, NORM)
    if KEEP:
        own = k.dtype.element_ty
        tl.store(source + pair, x.to(own), mask=known & (pair < F))
        tl.store(source + F + pair, y.to(own), mask=known & (pair < F))
        tl.store(source + 2 * F + rest, z.to(own), mask=known & (rest < D - 2 * F))
    kind = pages.dtype.element_ty
    x, y = _coded(x, k_worth, heads, known, CODE), _coded(y, k_worth, heads, known, CODE)
    z = _coded(z, k_worth, heads, known, CODE)
    tl.store(to + pair, x.to(kind), mask=known & (pair < F))
    tl.store(to + F + pair, y.to(kind), mask=known & (pair < F))
    tl.store(to + 2 * F + rest, z.to(kind), mask=known & (rest < D - 2 * F))
    whole = tl.arange(0, WHOLE)[None, :]
    inside = known & (whole < D)
    w = tl.load(v + n * v_row + heads * v_head + whole, mask=inside, other=0.0).to(tl.float32)
    w = _coded(w, v_worth, heads, known, CODE)
    tl.store(to + value_offset + whole, w.to(kind), mask=inside)


def rope_and_write(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    places: Places,
    rotation: Rotation,
    *,
    norms: HeadNorms | None = None,
    scales: PageScales | None = None,
    out_NHD: torch.Tensor | None = None,
    turn_keys: bool = False,
) -> torch.Tensor:
    """Writes keys and values into their pages, and returns the queries that attend to them.

    `turn_keys` leaves in `k_NGD`, too, the keys of rows that have a position as queries see them. `out_NHD` may be `q_NHD` itself. Rows, heads and pages may lie at any distance; `D` is contiguous. Pages are
    of any floating type, or codes with `scales`; what a code cannot reach becomes the nearest one.
    """
    _check(q_NHD, k_NGD, v_NGD, pages_B2GTD, places, rotation, scales)
    rows, heads, depth = q_NHD.shape
    heads_kv, tokens = pages_B2GTD.shape[2:4]
    half = rotation.cos_sin_S2F.shape[1] // 2
    out = (
        torch.empty(q_NHD.shape, dtype=q_NHD.dtype, device=q_NHD.device)
        if out_NHD is None
        else out_NHD
    )
    assert out.shape == q_NHD.shape, out.shape
    assert out.stride(2) == 1, out.stride()
    if not rows:
        return out
    code = "plain" if scales is None else "int8" if pages_B2GTD.dtype == torch.int8 else "fp8"
    pages = pages_B2GTD if scales is None else pages_B2GTD.view(torch.uint8)
    of_a_program = min(HEADS_OF_A_PROGRAM, triton.next_power_of_2(max(heads, heads_kv)))
    programs = triton.cdiv(heads, of_a_program) + triton.cdiv(heads_kv, of_a_program)
    none = places.positions_N  # stands where nothing is read
    rope_kernel[rows, programs](
        q_NHD, k_NGD, v_NGD, out, pages, rotation.cos_sin_S2F,
        none if rotation.axis_F is None else rotation.axis_F,
        places.turns_AN, places.positions_N, places.requests_N, places.tables_RW,
        norms.q_scale_D if norms else none, norms.k_scale_D if norms else none,
        scales.k_G if scales else none, scales.v_G if scales else none, norms.eps if norms else 0.0,
        *q_NHD.stride()[:2], *k_NGD.stride()[:2], *v_NGD.stride()[:2], *out.stride()[:2],
        *pages.stride()[:4], places.turns_AN.stride(0), places.tables_RW.stride(0),
        H=heads, G=heads_kv, D=depth, F=half, T=tokens, HEADS=of_a_program,
        HALF=triton.next_power_of_2(half), REST=triton.next_power_of_2(max(depth - 2 * half, 1)),
        WHOLE=triton.next_power_of_2(depth), AXES=rotation.axis_F is not None,
        NORM=norms is not None, CODE=code, KEEP=turn_keys,
    )  # fmt: skip
    return out


def _check(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    places: Places,
    rotation: Rotation,
    scales: PageScales | None,
) -> None:
    rows, _, depth = q_NHD.shape
    _, two, heads_kv, _, _ = pages_B2GTD.shape
    assert (two, pages_B2GTD.shape[4]) == (2, depth), pages_B2GTD.shape
    assert k_NGD.shape == v_NGD.shape == (rows, heads_kv, depth), (k_NGD.shape, v_NGD.shape)
    for tensor in (q_NHD, k_NGD, v_NGD, pages_B2GTD, rotation.cos_sin_S2F, places.turns_AN):
        assert tensor.stride(-1) == 1, tensor.stride()
    assert rotation.cos_sin_S2F.is_contiguous(), rotation.cos_sin_S2F.stride()
    assert rotation.cos_sin_S2F.dtype == torch.float32, rotation.cos_sin_S2F.dtype
    half = rotation.cos_sin_S2F.shape[1] // 2
    assert 2 * half <= depth, (half, depth)
    assert rotation.axis_F is None or rotation.axis_F.shape == (half,), rotation.axis_F
    assert places.turns_AN.shape[1] == rows, places.turns_AN.shape
    assert rotation.axis_F is not None or len(places.turns_AN) == 1, places.turns_AN.shape
    assert places.positions_N.shape == places.requests_N.shape == (rows,), places.positions_N.shape
    assert (pages_B2GTD.dtype in QUANTISED) == (scales is not None), pages_B2GTD.dtype


def rope_and_write_twin(
    q_NHD: torch.Tensor,
    k_NGD: torch.Tensor,
    v_NGD: torch.Tensor,
    pages_B2GTD: torch.Tensor,
    places: Places,
    rotation: Rotation,
    *,
    norms: HeadNorms | None = None,
    scales: PageScales | None = None,
) -> torch.Tensor:
    """The twin; computes in fp32."""
    q, k = q_NHD.float(), k_NGD.float()
    if norms is not None:
        q = reference.rms_norm(q, norms.q_scale_D.float(), norms.eps)
        k = reference.rms_norm(k, norms.k_scale_D.float(), norms.eps)
    axis_F = rotation.axis_F
    half = rotation.cos_sin_S2F.shape[1] // 2
    angles_AN2F = rotation.cos_sin_S2F[places.turns_AN.long()]
    cos_NF, sin_NF = angles_AN2F[0].split(half, dim=1)
    if axis_F is not None:
        pairs = torch.arange(half, device=axis_F.device)
        cos_NF, sin_NF = (t[axis_F.long(), :, pairs].T for t in angles_AN2F.split(half, dim=2))
    q, k = (_rotated(x, cos_NF[:, None], sin_NF[:, None]) for x in (q, k))
    there = places.positions_N >= 0
    position, request = places.positions_N[there].long(), places.requests_N[there].long()
    tokens = pages_B2GTD.shape[3]
    page = places.tables_RW[request, position // tokens].long()
    for part, x in enumerate((k, v_NGD.float())):
        if scales is None:
            codes = x.to(pages_B2GTD.dtype)
        else:
            worth_G = (scales.k_G, scales.v_G)[part]
            codes = _codes(x / worth_G[:, None], pages_B2GTD.dtype)
        pages_B2GTD.view(codes.dtype)[page, part, :, position % tokens] = codes[there]
    return q.to(q_NHD.dtype)


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = cos.shape[-1]
    first, second = x[..., :half], x[..., half : 2 * half]
    turned = (first * cos - second * sin, second * cos + first * sin)
    return torch.cat([*turned, x[..., 2 * half :]], dim=-1)


def _codes(x: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    if kind == torch.int8:
        return x.clamp(-127, 127).round().to(torch.int8)
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8)
