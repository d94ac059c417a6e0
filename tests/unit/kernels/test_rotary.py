"""Rotary positions, and the norms of heads before them, against their twins."""

import numpy as np
import pytest
import torch

from tercet.kernels import reference
from tercet.kernels.rotary import Heads, NativeRotary

QUERIES, KEYS, POSITIONS = 5, 2, 50
DTYPES = [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)]


def heads(dim: int, pairs: int, normed: bool) -> Heads:
    inverse = 10_000.0 ** -(torch.arange(pairs) / pairs)
    angles = torch.arange(POSITIONS)[:, None] * inverse
    table = torch.cat([angles.cos(), angles.sin()], dim=1).contiguous()
    scales = torch.randn(2, dim).unbind() if normed else (None, None)
    return Heads(QUERIES, KEYS, dim, (QUERIES + 2 * KEYS) * dim, table, *scales, eps=1e-5)


def rows(count: int, form: Heads, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(count, form.row).to(dtype), torch.randint(POSITIONS, (count,)).int()


def twin(x_NW: torch.Tensor, positions_N: torch.Tensor, form: Heads) -> torch.Tensor:
    q, k, v = x_NW.float().view(len(x_NW), -1, form.dim).split([QUERIES, KEYS, KEYS], dim=1)
    if form.q_scale_D is not None and form.k_scale_D is not None:
        q = reference.rms_norm(q, form.q_scale_D, form.eps)
        k = reference.rms_norm(k, form.k_scale_D, form.eps)
    turned = (reference.rotary(part, positions_N, form.cos_sin_S2F) for part in (q, k))
    return torch.cat([*turned, v], dim=1).flatten(1).to(x_NW.dtype)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize(("dim", "pairs"), [(64, 32), (24, 12), (80, 20), (7, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_kernel_agrees_with_its_twin(
    dim: int, pairs: int, normed: bool, dtype: torch.dtype, tolerance: float
) -> None:
    form = heads(dim, pairs, normed)
    x, positions = rows(19, form, dtype)
    expected = twin(x, positions, form)
    NativeRotary(dtype)(x, positions.numpy(), form)
    torch.testing.assert_close(x, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_alone_and_whoever_turns_it(dtype: torch.dtype, normed: bool) -> None:
    form = heads(24, 12, normed)
    x, positions = rows(40, form, dtype)
    alone, together = x.clone(), x.clone()
    for row, position in zip(alone.split(1), positions, strict=True):
        NativeRotary(dtype)(row, np.array([position], dtype=np.int32), form)
    NativeRotary(dtype, threads=3)(together, positions.numpy(), form)
    assert torch.equal(alone, together)
    assert not torch.equal(alone, x)
