"""The fresh-prefill kernel against its twin, and against what the prefix-prefill kernel makes of pages."""

import numpy as np
import pytest
import torch

from tercet.kernels.gpu.attention_tuning import PrefillTuning, attention_tuning
from tercet.kernels.gpu.chunk_attention import chunk_attention
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.fresh_attention import can_fetch, fresh_attention, fresh_attention_twin
from tercet.kernels.gpu.query_tiles import query_tiles
from tercet.kernels.softmax_rule import SoftmaxRule

TUNING = PrefillTuning(rows=32, tile=16, warps=4, stages=2)
LENGTHS = [(0, 19), (0, 1), (0, 45), (0, 2)]
SINKS = torch.tensor([0.5, -1.0, 3.0, 0.0, 9.0, 1.5])
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
SHAPES = [
    (1, {}),
    (0, dict(dtype=torch.float16, dim=64)),
    (0, dict(dtype=torch.bfloat16, dim=96)),
    (1, dict(window=17, heads=7, kv_heads=1)),
    (2, dict(window=7, softcap=5.0, sinks=SINKS, heads=6, dim=32)),
]


def kernel(case, skipped: int = 0) -> torch.Tensor:
    out, _ = case.outputs()
    group = case.q.shape[1] // case.k.shape[1]
    tiles = query_tiles(case.batch, TUNING.rows // group, skipped)
    fresh_attention(case.q, case.k, case.v, case.batch, tiles, case.rule, out, TUNING)
    return out


@pytest.mark.parametrize(("skipped", "shape"), SHAPES)
def test_rows_are_what_the_twin_says_and_no_others_are_written(make_case, skipped, shape) -> None:
    case = make_case(LENGTHS, **shape)
    _, twin = case.outputs()
    fresh_attention_twin(case.q, case.k, case.v, case.batch, skipped, case.rule, twin)
    torch.testing.assert_close(
        kernel(case, skipped), twin, atol=TOLERANCE[case.q.dtype], rtol=TOLERANCE[case.q.dtype]
    )


@pytest.mark.parametrize("shape", [SHAPES[0][1], SHAPES[-1][1]])
def test_it_makes_the_very_bits_that_come_from_pages(make_case, shape) -> None:
    case = make_case(LENGTHS, **shape)
    out, _ = case.outputs()
    tiles = query_tiles(case.batch, TUNING.rows * case.k.shape[1] // case.q.shape[1])
    chunk_attention(case.q, case.pages, case.batch, tiles, case.rule, out, TUNING)
    assert torch.equal(kernel(case), out)


def test_a_neighbours_nan_stays_with_the_neighbour(make_case) -> None:
    case = make_case(LENGTHS)
    sound = kernel(case)
    case.k[19], case.v[19] = torch.nan, torch.nan  # of the second request
    with np.errstate(invalid="ignore"):
        broken = kernel(case)
    assert broken[19].isnan().all()
    assert torch.equal(torch.cat([broken[:19], broken[20:]]), torch.cat([sound[:19], sound[20:]]))


def test_what_tma_cannot_read_is_told_beforehand() -> None:
    qkv = torch.empty(3, 8, 64, dtype=torch.bfloat16)
    assert can_fetch(qkv[:, 2:4])
    assert can_fetch(qkv.transpose(0, 1))
    assert not can_fetch(qkv[:, :, 1:])
    assert not can_fetch(torch.empty(3, 2, 12, dtype=torch.bfloat16))
    assert not can_fetch(qkv.transpose(1, 2))


def launch(dtype: str, dim: int, window: int, softcap: float) -> None:
    qkv = torch.empty(256, 48, dim, dtype=getattr(torch, dtype))
    q, k, v = qkv.split([32, 8, 8], dim=1)
    ints = torch.zeros(256, dtype=torch.int32)
    batch = DeviceBatch(ints[:5], ints[:4], ints, ints, torch.empty(4, 40).int())
    rule = SoftmaxRule(0.1, window, softcap, sinks=torch.empty(32) if softcap else None)
    tuning = attention_tuning(torch.device("cpu"), dim, q.element_size()).fresh
    tiles = query_tiles(batch, tuning.rows // 4, 1)
    fresh_attention(q, k, v, batch, tiles, rule, torch.empty_like(q), tuning)


@pytest.mark.parametrize(
    "shape",
    [("bfloat16", 128, 0, 0.0), ("float16", 256, 1024, 50.0)],
)
def test_on_an_h100_it_feeds_wgmma_by_tma(compiled, shape) -> None:
    _, fresh = compiled(launch, *shape)
    assert fresh.name == "fresh_kernel"
    fresh.check()
    assert fresh.wgmma
    assert not fresh.mma
    assert fresh.tma_loads
