"""The prefix-prefill kernel against its twin, and against itself on prompts cut otherwise."""

from itertools import pairwise

import pytest
import torch

from tercet.kernels.gpu.attention_tuning import PrefillTuning, attention_tuning
from tercet.kernels.gpu.chunk_attention import chunk_attention, chunk_attention_twin
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.query_tiles import query_tiles
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

TUNING = PrefillTuning(rows=32, tile=16, warps=4, stages=2)
MIXED = [(40, 19), (3, 1), (0, 25), (30, 2)]
SINKS = torch.tensor([0.5, -1.0, 3.0, 0.0, 9.0, 1.5])
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def kernel(case, skipped: int = 0, tuning: PrefillTuning = TUNING) -> torch.Tensor:
    out, _ = case.outputs()
    group = case.q.shape[1] // case.pages.shape[2]
    tiles = query_tiles(case.batch, tuning.rows // group, skipped)
    chunk_attention(
        case.q, case.pages, case.batch, tiles, case.rule, out, tuning, scales=case.scales
    )
    return out


@pytest.mark.parametrize(
    ("skipped", "shape"),
    [
        (1, {}),
        (0, dict(dtype=torch.float16, dim=64, page_tokens=64)),
        (1, dict(dtype=torch.bfloat16, dim=96, page_tokens=4)),
        (0, dict(window=17, heads=7, kv_heads=1)),
        (1, dict(softcap=2.0, scale=1.5, sinks=SINKS, heads=6, page_tokens=12)),
        (2, dict(window=7, softcap=5.0, sinks=SINKS, heads=6, dim=32)),
        (1, dict(codes=torch.int8, dtype=torch.bfloat16)),
        (1, dict(codes=torch.float8_e4m3fn, dtype=torch.bfloat16, page_tokens=32)),
    ],
)
def test_rows_are_what_the_twin_says_and_no_others_are_written(make_case, skipped, shape) -> None:
    case = make_case(MIXED, **shape)
    _, twin = case.outputs()
    chunk_attention_twin(case.q, case.pages, case.batch, skipped, case.rule, twin, case.scales)
    torch.testing.assert_close(
        kernel(case, skipped), twin, atol=TOLERANCE[case.q.dtype], rtol=TOLERANCE[case.q.dtype]
    )


@pytest.mark.parametrize("shape", [dict(sinks=SINKS[:4]), dict(window=20, softcap=3.0)])
def test_a_rows_bits_do_not_depend_on_how_its_prompt_was_cut(make_case, shape) -> None:
    case = make_case([(0, 70)], **shape)
    whole = kernel(case)
    for cuts in ((0, 7, 70), (0, 33, 34, 64, 70)):
        for begin, end in pairwise(cuts):
            host = PagedBatch.of([end - begin], [begin], case.host.tables.tolist(), 16)
            out = torch.zeros_like(case.q[begin:end])
            batch = DeviceBatch.of(host, case.q.device)
            chunk_attention(
                case.q[begin:end], case.pages, batch, query_tiles(batch, 16), case.rule, out, TUNING
            )
            assert torch.equal(out, whole[begin:end])


def test_a_rows_bits_do_not_depend_on_the_batch(make_case) -> None:
    case = make_case(MIXED)
    together = kernel(case)
    for request in (0, 3):
        run = slice(*case.host.query_starts[request : request + 2].tolist())
        assert torch.equal(kernel(case.alone(request)), together[run])


def launch(dtype: str, codes: str, dim: int, tokens: int, window: int, softcap: float) -> None:
    q = torch.empty(256, 32, dim, dtype=getattr(torch, dtype))
    pages = torch.empty(9, 2, 2, 8, tokens, dim, dtype=getattr(torch, codes))[:, 0]
    scale_G = torch.empty(8)
    scales = None if codes == dtype else PageScales(scale_G, scale_G)
    ints = torch.zeros(256, dtype=torch.int32)
    batch = DeviceBatch(ints[:5], ints[:4], ints, ints, torch.empty(4, 40).int())
    rule = SoftmaxRule(0.1, window, softcap, sinks=torch.empty(32) if softcap else None)
    tuning = attention_tuning(torch.device("cpu"), dim, pages.element_size()).chunk
    tiles = query_tiles(batch, tuning.rows // 4, 1)
    chunk_attention(q, pages, batch, tiles, rule, torch.empty_like(q), tuning, scales)


@pytest.mark.parametrize(
    "shape",
    [
        ("bfloat16", "bfloat16", 128, 16, 0, 0.0),
        ("bfloat16", "float8_e4m3fn", 256, 64, 1024, 50.0),
    ],
)
def test_on_an_h100_it_copies_pages_16_bytes_at_a_time_to_wgmma(compiled, shape) -> None:
    tiles, chunk = compiled(launch, *shape)
    assert (tiles.name, chunk.name) == ("query_tiles_kernel", "chunk_kernel")
    tiles.check()
    chunk.check()
    assert chunk.wgmma
    assert not chunk.mma
    assert chunk.async_copies_16b
