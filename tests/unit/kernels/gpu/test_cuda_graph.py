"""What only a GPU can show: one captured step serves batches of any lengths."""

import pytest
import torch

from tercet.kernels.gpu.attention_tuning import attention_tuning
from tercet.kernels.gpu.decode_attention import decode_attention, decode_attention_twin
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.kv_write import kv_write
from tercet.kernels.gpu.task_map import decode_tasks
from tercet.kernels.softmax_rule import SoftmaxRule

REQUESTS, HEADS, KV_HEADS, DIM, TOKENS, PAGES = 8, 32, 8, 128, 16, 40


@pytest.mark.gpu
def test_a_captured_step_follows_the_lengths_it_is_given() -> None:
    device = torch.device("cuda")
    torch.manual_seed(0)
    tuning = attention_tuning(device, DIM, 2).decode
    rule = SoftmaxRule(DIM**-0.5)
    pages = torch.randn(
        REQUESTS * PAGES, 2, KV_HEADS, TOKENS, DIM, device=device, dtype=torch.bfloat16
    )
    q, k, v = (
        torch.randn(REQUESTS, HEADS + 2 * KV_HEADS, DIM, device=device)
        .bfloat16()
        .split([HEADS, KV_HEADS, KV_HEADS], dim=1)
    )
    rows = torch.arange(REQUESTS + 1, dtype=torch.int32, device=device)
    order = torch.randperm(REQUESTS * PAGES, device=device).int().view(REQUESTS, PAGES)
    contexts, positions = torch.zeros(2, REQUESTS, dtype=torch.int32, device=device)
    batch = DeviceBatch(rows, contexts, positions, rows[:-1].clone(), order)
    out = torch.empty(REQUESTS, HEADS, DIM, device=device, dtype=torch.bfloat16)

    def step() -> None:
        kv_write(k, v, pages, batch)
        tasks = decode_tasks(
            batch, KV_HEADS, window=0, tile=tuning.tile, splits=tuning.splits, programs=200,
            splits_max=REQUESTS * tuning.splits.count_max(PAGES * TOKENS),
        )  # fmt: skip
        decode_attention(q, pages, batch, tasks, rule, out, tuning)

    step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(3):
        lengths = torch.randint(0, PAGES * TOKENS, (REQUESTS,), device=device).int()
        contexts.copy_(lengths)
        positions.copy_(lengths)
        graph.replay()
        twin = torch.empty_like(out)
        decode_attention_twin(q, pages, batch, 1, rule, twin)
        torch.testing.assert_close(out, twin, atol=2e-2, rtol=2e-2)
