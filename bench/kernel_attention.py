"""Attention kernels beside torch's own, for `kernels.py`."""

import numpy as np
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flash_attention_3
from gpu_measure import Machine, Report, Work
from kernel_sizes import CEILING, Sizes, normal
from tercet.kernels.gpu.attention_tuning import AttentionTuning, attention_tuning
from tercet.kernels.gpu.chunk_attention import chunk_attention
from tercet.kernels.gpu.decode_attention import decode_attention
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.fresh_attention import fresh_attention
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.query_tiles import query_tiles
from tercet.kernels.gpu.task_map import decode_tasks
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

PUBLISHED_FA3_US = {
    "1 x 1k": 10.6, "1 x 8k": 15.7, "1 x 32k": 42.7, "8 x 4k": 41.4, "32 x 1k": 41.9, "32 x 4k": 131.0,
    "64 x 4k": 252.0, "128 x 4k": 491.0, "256 x 1k": 272.0,
}  # fmt: skip
"""FlashAttention-3 in vLLM or SGLang on an H200, as aiconfigurator's tables have it (one cache, small ones stay in L2)."""


def decode_case(
    machine: Machine, sizes: Sizes, lengths: list[int], codes: torch.dtype | None
) -> tuple[list[Work], int]:
    """Ours over the last row of each request; and the bytes of keys and values that it reads."""
    kv_dtype = codes or sizes.dtype
    places = [-(-length // sizes.page) for length in lengths]
    block = sizes.kv_heads * sizes.page * sizes.dim
    nbytes = sum(lengths) * 2 * sizes.kv_heads * sizes.dim * kv_dtype.itemsize
    copies = machine.copies(nbytes)
    order = torch.randperm(sum(places) * copies).tolist()
    shape = (len(order), 2, sizes.kv_heads, sizes.page, sizes.dim)
    pages = normal(machine, len(order) * 2, block, dtype=sizes.dtype).view(shape).to(kv_dtype)
    ones = torch.ones(sizes.kv_heads, device=machine.device)
    scales = PageScales(ones, ones) if codes else None
    tuning = attention_tuning(machine.device, sizes.dim, kv_dtype.itemsize)
    return [
        one_decode(machine, sizes, lengths, [order.pop() for _ in range(sum(places))], pages, scales, tuning)
        for _ in range(copies)
    ], nbytes  # fmt: skip


def one_decode(
    machine: Machine,
    sizes: Sizes,
    lengths: list[int],
    blocks: list[int],
    pages: torch.Tensor,
    scales: PageScales | None,
    tuning: AttentionTuning,
) -> Work:
    tables = [[blocks.pop() for _ in range(-(-length // sizes.page))] for length in lengths]
    host = PagedBatch.of([1] * len(lengths), [n - 1 for n in lengths], tables, sizes.page)
    batch = DeviceBatch.of(host, machine.device)
    q = normal(machine, len(lengths), sizes.heads, sizes.dim, dtype=sizes.dtype)
    out = torch.empty_like(q)
    rule = SoftmaxRule(sizes.dim**-0.5)
    decode = tuning.decode
    tasks = decode_tasks(
        batch,
        sizes.kv_heads,
        window=0,
        tile=decode.tile,
        splits=decode.splits,
        programs=machine.processors * decode.programs_per_sm,
        splits_max=int(decode.splits.counts(np.array(lengths)).sum()),
    )
    return lambda: decode_attention(q, pages, batch, tasks, rule, out, decode, scales)


def decode(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table(
        "Decode attention, one layer", "lengths", "kv", "us", "spread %", "TB/s of KV", "% of read",
        "dense SDPA / ours", "FA3 / ours", "FA3 (published, H200) / ours",
    )  # fmt: skip
    kinds = (None,) if machine.dry else (None, torch.float8_e4m3fn)
    for name, lengths in sizes.decode.items():
        for codes in kinds:
            works, nbytes = decode_case(machine, sizes, lengths, codes)
            took = machine.timing(works)
            tbs = nbytes / took.p50_us / 1e6
            dense = dense_decode(machine, sizes, lengths) if codes is None else None
            fa3 = flash_decode(report, sizes, lengths, len(works)) if codes is None else None
            peer = PUBLISHED_FA3_US.get(name) if codes is None and not machine.dry else None
            table.add(
                name, str(codes or sizes.dtype).removeprefix("torch."), took.p50_us,
                100 * took.spread, tbs, 100 * tbs / CEILING.read_tbs,
                *(us / took.p50_us if us else "-" for us in (dense, fa3, peer)),
            )  # fmt: skip


def dense_decode(machine: Machine, sizes: Sizes, lengths: list[int]) -> float | None:
    """Torch's attention where all lengths are equal: keys and values lie dense, as no server has them."""
    if len(set(lengths)) > 1:
        return None
    shape = (len(lengths), sizes.kv_heads, lengths[0], sizes.dim)
    nbytes = 2 * len(lengths) * lengths[0] * sizes.kv_heads * sizes.dim * sizes.dtype.itemsize
    q = normal(machine, len(lengths), sizes.heads, 1, sizes.dim, dtype=sizes.dtype)
    cases = [
        [normal(machine, *shape, dtype=sizes.dtype) for _ in range(2)]
        for _ in range(min(machine.copies(nbytes), 8))
    ]
    return machine.timing(
        [
            lambda k=k, v=v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
            for k, v in cases
        ]
    ).p50_us


def flash_decode(report: Report, sizes: Sizes, lengths: list[int], copies: int) -> float | None:
    """FlashAttention-3 on pages, microseconds; None with a note where it cannot run."""
    if report.machine.dry:
        return None
    try:
        works = flash_attention_3.decode_works(report.machine, sizes, lengths, copies)
        return report.machine.timing(works).p50_us if works else None
    except (OSError, RuntimeError) as exc:
        report.notes.append(f"FlashAttention-3, decoding {len(lengths)} requests: {exc}")
        return None


def prefill(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table(
        "Prefill attention, one layer", "rows", "kernel", "us", "spread %", "TF/s", "% of product",
        "flash SDPA / ours", "cuDNN SDPA / ours", "FA3 / ours",
    )  # fmt: skip
    for name, (requests, context, rows) in sizes.prefill.items():
        pairs = requests * (rows * context + rows * (rows + 1) / 2)
        flop = 4 * pairs * sizes.heads * sizes.dim
        peers = [
            peer_prefill(report, sizes, requests, context, rows, kind)
            for kind in ("flash", "cudnn", "FA3")
        ]
        for kernel, work in prefill_works(machine, sizes, requests, context, rows).items():
            took = machine.timing([work])
            tf = flop / took.p50_us / 1e6
            ratios = [peer / took.p50_us if peer else "-" for peer in peers]
            table.add(name, kernel, took.p50_us, 100 * took.spread, tf, 100 * tf / CEILING.product_tf, *ratios)  # fmt: skip


def prefill_works(
    machine: Machine, sizes: Sizes, requests: int, context: int, rows: int
) -> dict[str, Work]:
    places = -(-(context + rows) // sizes.page)
    order = torch.randperm(requests * places).tolist()
    tables = [order[i * places : (i + 1) * places] for i in range(requests)]
    host = PagedBatch.of([rows] * requests, [context] * requests, tables, sizes.page)
    batch = DeviceBatch.of(host, machine.device)
    tuning = attention_tuning(machine.device, sizes.dim, sizes.dtype.itemsize)
    group, rule = sizes.heads // sizes.kv_heads, SoftmaxRule(sizes.dim**-0.5)
    shape = (len(order), 2, sizes.kv_heads, sizes.page, sizes.dim)
    pages = normal(machine, *shape, dtype=sizes.dtype)
    q = normal(machine, requests * rows, sizes.heads, sizes.dim, dtype=sizes.dtype)
    k, v = (normal(machine, requests * rows, sizes.kv_heads, sizes.dim, dtype=sizes.dtype) for _ in range(2))  # fmt: skip
    out = torch.empty_like(q)
    tiles = query_tiles(batch, tuning.chunk.rows // group)
    works: dict[str, Work] = {
        "chunk": lambda: chunk_attention(q, pages, batch, tiles, rule, out, tuning.chunk)
    }
    if not context:
        fresh = query_tiles(batch, tuning.fresh.rows // group)
        works["fresh"] = lambda: fresh_attention(q, k, v, batch, fresh, rule, out, tuning.fresh)
    return works


def peer_prefill(
    report: Report, sizes: Sizes, requests: int, context: int, rows: int, kind: str
) -> float | None:
    """Torch's attention on dense keys and values; it is causal from the first row on, so only without context."""
    machine = report.machine
    if context or machine.dry:
        return None
    if kind == "FA3":
        return flash_prefill(report, sizes, requests, rows)
    backend = SDPBackend.FLASH_ATTENTION if kind == "flash" else SDPBackend.CUDNN_ATTENTION
    q = normal(machine, requests, sizes.heads, rows, sizes.dim, dtype=sizes.dtype)
    k, v = (normal(machine, requests, sizes.kv_heads, rows, sizes.dim, dtype=sizes.dtype) for _ in range(2))  # fmt: skip
    group = sizes.heads // sizes.kv_heads
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    try:
        with sdpa_kernel([backend]):
            return machine.timing(
                [lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True)]
            ).p50_us
    except RuntimeError as exc:
        report.notes.append(f"{kind} attention of {requests} x {rows} rows: {exc}")
        return None


def flash_prefill(report: Report, sizes: Sizes, requests: int, rows: int) -> float | None:
    """FlashAttention-3 on dense keys and values, microseconds; None with a note where it cannot run."""
    try:
        work = flash_attention_3.prefill_work(report.machine, sizes, requests, rows)
        return report.machine.timing([work]).p50_us if work else None
    except (OSError, RuntimeError) as exc:
        report.notes.append(f"FlashAttention-3, {requests} x {rows} rows: {exc}")
        return None
