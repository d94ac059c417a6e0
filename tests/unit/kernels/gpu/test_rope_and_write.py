"""Rotation, norm and write in one launch do what the three do one after another."""

import dataclasses

import pytest
import torch

from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.rope_and_write import (
    HeadNorms,
    Places,
    Rotation,
    rope_and_write,
    rope_and_write_twin,
)

pytestmark = pytest.mark.usefixtures("on_device")

H, G, D, T, PAGES = 5, 2, 12, 4, 7
TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3, torch.bfloat16: 4e-2}


def rotation(half: int, axes: int = 1, positions: int = 50) -> Rotation:
    inverse = 10_000.0 ** -(torch.arange(half) / half)
    angles = torch.arange(positions)[:, None] * inverse
    table = torch.cat([angles.cos(), angles.sin()], dim=1).contiguous()
    axis = None if axes == 1 else (torch.arange(half) * axes // half).int()
    return Rotation(table, axis)


def places(positions: list[int], axes: int = 1) -> Places:
    """Each row is of a request of its own, whose pages are neither in order nor apart by one."""
    rows = len(positions)
    tables = torch.tensor([[6, 1, 3], [2, 5, 4]]).int()[torch.arange(rows) % 2]
    turns = torch.stack([torch.tensor(positions).clamp(min=0) + 7 * a for a in range(axes)])
    requests = torch.arange(rows).flip(0)
    return Places(torch.tensor(positions).int(), requests.int(), tables, turns.int())


def inputs(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Views into one merged product, as a layer has them."""
    torch.manual_seed(rows)
    merged = torch.randn(rows, (H + 2 * G) * D).to(dtype)
    q, k, v = merged.split([H * D, G * D, G * D], dim=1)
    return q.view(rows, H, D), k.view(rows, G, D), v.view(rows, G, D)


def pool(dtype: torch.dtype) -> torch.Tensor:
    """One layer's pages of a pool that has more layers."""
    whole = torch.zeros(PAGES, 3, 2, G, T, D, dtype=torch.float32)
    return whole.to(dtype)[:, 1]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("half", "axes"), [(6, 1), (6, 3), (4, 1), (5, 2)])
@pytest.mark.parametrize("normed", [False, True])
def test_kernel_agrees_with_its_twin(
    dtype: torch.dtype, half: int, axes: int, normed: bool
) -> None:
    q, k, v = inputs(3, dtype)
    norms = HeadNorms(torch.randn(D), torch.randn(D), 1e-6) if normed else None
    at, turn = places([0, 9, 5], axes), rotation(half, axes)
    mine, theirs = pool(dtype), pool(dtype)
    out = rope_and_write(q, k, v, mine, at, turn, norms=norms)
    twin = rope_and_write_twin(q, k, v, theirs, at, turn, norms=norms)
    close = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    torch.testing.assert_close(out, twin, **close)
    torch.testing.assert_close(mine, theirs, **close)
    assert out.dtype == dtype
    assert mine.count_nonzero() == 3 * 2 * G * D, "nothing else may be written"


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_quantised_pages_hold_the_twins_codes(kind: torch.dtype) -> None:
    q, k, v = inputs(4, torch.float32)
    scales = PageScales(torch.tensor([0.05, 0.01]), torch.tensor([0.02, 0.005]))
    at, turn = places([3, 4, 11, 0]), rotation(6)
    mine, theirs = pool(kind), pool(kind)
    rope_and_write(q, k, v, mine, at, turn, scales=scales)
    rope_and_write_twin(q, k, v, theirs, at, turn, scales=scales)
    wrong = (mine.view(torch.uint8) != theirs.view(torch.uint8)).sum()
    # A rotation that ends within rounding of the middle between two codes may go to either.
    assert wrong <= 1
    worth = torch.stack([scales.k_G, scales.v_G])[:, :, None, None]
    pages, requests = at.tables_RW[at.requests_N.long(), at.positions_N // T], at.positions_N % T
    values = (mine.float() * worth)[pages.long(), 1, :, requests.long()]
    largest = (448 if kind == torch.float8_e4m3fn else 127) * scales.v_G[:, None]
    clipped = v.clamp(-largest, largest)
    torch.testing.assert_close(values, clipped, atol=0.011, rtol=1 / 16)


def test_queries_may_be_rotated_in_place() -> None:
    q, k, v = inputs(2, torch.float32)
    at, turn = places([1, 2]), rotation(6)
    expected = rope_and_write(q, k, v, pool(torch.float32), at, turn)
    out = rope_and_write(q, k, v, pool(torch.float32), at, turn, out_NHD=q)
    assert out is q
    assert torch.equal(q, expected)


def test_padding_writes_nothing() -> None:
    q, k, v = inputs(3, torch.float32)
    pages = pool(torch.float32)
    rope_and_write(q, k, v, pages, places([2, -1, -1]), rotation(6))
    assert pages.count_nonzero() == 2 * G * D


def test_a_row_does_not_feel_the_batch() -> None:
    q, k, v = inputs(4, torch.float32)
    norms = HeadNorms(torch.randn(D), torch.randn(D), 1e-6)
    at, turn, together = places([0, 9, 5, 10]), rotation(4), pool(torch.float32)
    out = rope_and_write(q, k, v, together, at, turn, norms=norms)
    apart = pool(torch.float32)
    for n in range(4):
        row = slice(n, n + 1)
        alone = dataclasses.replace(
            at,
            positions_N=at.positions_N[row],
            requests_N=at.requests_N[row],
            turns_AN=at.turns_AN[:, row],
        )
        mine = rope_and_write(q[row], k[row], v[row], apart, alone, turn, norms=norms)
        assert torch.equal(mine[0], out[n])
    assert torch.equal(apart, together)


def test_one_axis_turns_as_transformers_turns() -> None:
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb  # noqa: PLC0415

    q, k, v = inputs(3, torch.float32)
    at, turn, pages = places([7, 3, 11]), rotation(6), pool(torch.float32)
    out = rope_and_write(q, k, v, pages, at, turn)
    cos, sin = (t.repeat(1, 2)[at.turns_AN[0]] for t in turn.cos_sin_S2F.split(6, dim=1))
    theirs, _ = apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=1)
    torch.testing.assert_close(out, theirs, atol=1e-6, rtol=1e-6)


def test_three_axes_turn_as_transformers_turns() -> None:
    from transformers import Qwen2VLTextConfig  # noqa: PLC0415
    from transformers.models.qwen2_vl.modeling_qwen2_vl import (  # noqa: PLC0415
        Qwen2VLRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    sections = [2, 1, 3]
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": sections}
    config = Qwen2VLTextConfig(hidden_size=H * D, num_attention_heads=H, rope_parameters=rope)
    q, k, v = inputs(3, torch.float32)
    at = places([7, 3, 11], axes=3)
    axis = torch.repeat_interleave(torch.arange(3), torch.tensor(sections)).int()
    turn = Rotation(rotation(6).cos_sin_S2F, axis)
    out = rope_and_write(q, k, v, pool(torch.float32), at, turn)
    cos, sin = Qwen2VLRotaryEmbedding(config)(v, at.turns_AN[:, None].long())
    queries, keys = (x.transpose(0, 1)[None] for x in (q, k))
    theirs, _ = apply_rotary_pos_emb(queries, keys, cos, sin)
    torch.testing.assert_close(out, theirs[0].transpose(0, 1), atol=1e-5, rtol=1e-5)


def launch(half: int, coded: bool) -> None:
    rows, heads, depth = 2, 32, 128
    kind = torch.float8_e4m3fn if coded else torch.bfloat16
    q, k = (torch.empty(rows, h, depth, dtype=torch.bfloat16) for h in (heads, 8))
    pages = torch.empty(4, 2, 8, 64, depth, dtype=kind)
    norms = HeadNorms(torch.empty(depth), torch.empty(depth), 1e-6)
    scales = PageScales(torch.ones(8), torch.ones(8)) if coded else None
    at, turn = places([1, 2], axes=3), rotation(half, axes=3)
    rope_and_write(q, k, k, pages, at, turn, norms=norms, scales=scales)


@pytest.mark.parametrize(("half", "coded"), [(64, False), (32, True)])
def test_the_kernel_compiles_without_spilling(compiled, half: int, coded: bool) -> None:
    (kernel,) = compiled(launch, half, coded)
    kernel.check()
