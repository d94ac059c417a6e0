"""The split-KV kernel against its twin, and against itself in other batches."""

import dataclasses

import pytest
import torch

from tercet.kernels.gpu.attention_tuning import DecodeTuning, attention_tuning
from tercet.kernels.gpu.decode_attention import decode_attention, decode_attention_twin
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.task_map import decode_tasks
from tercet.kernels.softmax_rule import SoftmaxRule

TUNING = DecodeTuning(tile=16, split_min=32, split_max=64, warps=4, stages=2, programs_per_sm=1)
MIXED = [(40, 1), (3, 9), (0, 1), (75, 1)]
SINKS = torch.tensor([0.5, -1.0, 3.0, 0.0, 9.0, 1.5])
TOLERANCE = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def kernel(case, rows: int = 1, programs: int = 3, tuning: DecodeTuning = TUNING) -> torch.Tensor:
    out, _ = case.outputs()
    tasks = decode_tasks(
        case.batch, case.pages.shape[2], window=case.rule.window, tile=tuning.tile,
        splits=tuning.splits, programs=programs, splits_max=20, rows=rows,
    )  # fmt: skip
    decode_attention(
        case.q, case.pages, case.batch, tasks, case.rule, out, tuning, scales=case.scales
    )
    return out


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        (1, {}),
        (1, dict(dtype=torch.float16, dim=64, page_tokens=64)),
        (1, dict(dtype=torch.bfloat16, dim=96, page_tokens=4)),
        (1, dict(window=17, heads=7, kv_heads=1)),
        (2, dict(softcap=2.0, scale=1.5, sinks=SINKS, heads=6, page_tokens=12)),
        (9, dict(window=7, softcap=5.0, sinks=SINKS, heads=6, dim=32)),
        (1, dict(codes=torch.int8, dtype=torch.bfloat16)),
        (2, dict(codes=torch.float8_e4m3fn, dtype=torch.bfloat16, page_tokens=32)),
    ],
)
def test_rows_are_what_the_twin_says_and_no_others_are_written(make_case, rows, shape) -> None:
    case = make_case(MIXED, **shape)
    _, twin = case.outputs()
    decode_attention_twin(case.q, case.pages, case.batch, rows, case.rule, twin, case.scales)
    torch.testing.assert_close(
        kernel(case, rows), twin, atol=TOLERANCE[case.q.dtype], rtol=TOLERANCE[case.q.dtype]
    )


def test_a_rows_bits_do_not_depend_on_batch_programs_or_neighbours(make_case) -> None:
    case = make_case([(40, 1), (33, 3), (75, 1)], window=40, sinks=SINKS[:4])
    together = kernel(case, rows=3)
    for request, programs in ((0, 1), (1, 5), (2, 7)):
        run = slice(*case.host.query_starts[request : request + 2].tolist())
        alone = case.alone(request)
        assert torch.equal(kernel(alone, 3, programs), together[run])
    row_by_row = case.alone(1)
    for row in range(3):
        one = dataclasses.replace(
            row_by_row,
            q=row_by_row.q[row : row + 1],
            batch=dataclasses.replace(
                row_by_row.batch,
                query_starts_R1=torch.tensor([0, 1], dtype=torch.int32, device=case.q.device),
                contexts_R=torch.tensor([33 + row], dtype=torch.int32, device=case.q.device),
            ),
        )
        assert torch.equal(kernel(one)[0], together[1 + row])


def test_large_scores_do_not_overflow(make_case) -> None:
    case = make_case(MIXED, scale=400.0)
    _, twin = case.outputs()
    decode_attention_twin(case.q, case.pages, case.batch, 1, case.rule, twin)
    torch.testing.assert_close(kernel(case), twin, atol=5e-3, rtol=0)


def launch(
    dtype: str, codes: str, dim: int, tokens: int, rows: int, window: int, softcap: float
) -> None:
    q = torch.empty(32, 32, dim, dtype=getattr(torch, dtype))
    pages = torch.empty(9, 2, 2, 8, tokens, dim, dtype=getattr(torch, codes))[:, 0]
    scale_G = torch.empty(8)
    scales = None if codes == dtype else PageScales(scale_G, scale_G)
    ints = torch.zeros(33, dtype=torch.int32)
    batch = DeviceBatch(ints, ints[:32], ints[:32], ints[:32], torch.empty(32, 40).int())
    rule = SoftmaxRule(0.1, window, softcap, sinks=torch.empty(32) if softcap else None)
    tuning = attention_tuning(torch.device("cpu"), dim, pages.element_size()).decode
    tasks = decode_tasks(
        batch, 8, window=window, tile=tuning.tile, splits=tuning.splits, programs=264,
        splits_max=999, rows=rows,
    )  # fmt: skip
    decode_attention(q, pages, batch, tasks, rule, torch.empty_like(q), tuning, scales)


@pytest.mark.parametrize(
    "shape",
    [
        ("bfloat16", "bfloat16", 128, 64, 1, 0, 0.0),
        ("bfloat16", "float8_e4m3fn", 128, 16, 1, 0, 0.0),
        ("bfloat16", "int8", 256, 16, 4, 1024, 50.0),
    ],
)
def test_on_an_h100_it_copies_pages_16_bytes_at_a_time_to_tensor_cores(compiled, shape) -> None:
    kernels = {kernel.name: kernel for kernel in compiled(launch, *shape)}
    assert list(kernels) == ["decode_tasks_kernel", "split_kernel", "combine_kernel"]
    for kernel in kernels.values():
        kernel.check()
    assert kernels["split_kernel"].mma
    assert kernels["split_kernel"].async_copies_16b
