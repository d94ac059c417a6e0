"""Finds the sizes that are shipped in kernels/gpu/tuned and in `skinny_gemm.plan_of`. Nobody else ever searches for them.

    python bench/tune.py [--only decode-bf16 decode-fp8 chunk fresh gemm] [--seconds 240] [--json FILE]

Every candidate is compiled by a process of its own share, then timed on every shape, one after the other, by medians of graph
replays over rotated buffers. Printed are the best by the geometric mean over shapes, relative to the best of each shape.
"""

import itertools
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from triton.runtime.errors import OutOfResources, PTXASError

from gpu_measure import Machine, Report, Work, parser
from kernel_sizes import Sizes, normal
from tercet.kernels.gpu.attention_tuning import DecodeTuning, PrefillTuning
from tercet.kernels.gpu.chunk_attention import chunk_attention
from tercet.kernels.gpu.decode_attention import decode_attention
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.fresh_attention import fresh_attention
from tercet.kernels.gpu.gated import Gate
from tercet.kernels.gpu.page_scales import PageScales
from tercet.kernels.gpu.query_tiles import query_tiles
from tercet.kernels.gpu.skinny_gemm import PROGRAMS_AIM, Plan, Scratch, skinny_gemm
from tercet.kernels.gpu.task_map import decode_tasks
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

DECODED = {
    "1 x 1k": [1024], "1 x 8k": [8192], "32 x 1k": [1024] * 32, "64 x 4k": [4096] * 64,
    "256 x 1k": [1024] * 256, "skew": [65536] + [4096] * 15,
}  # fmt: skip
PREFILLED = {
    "1 x 1k": (0, 1024),
    "1 x 4k": (0, 4096),
    "1 x 16k": (0, 16384),
    "2k on 8k": (8192, 2048),
}
WEIGHTS = {
    "qkv 6144x4096": (6144, 4096, False), "o 4096x4096": (4096, 4096, False),
    "gate_up 28672x4096": (28672, 4096, True), "down 4096x14336": (4096, 14336, False),
}  # fmt: skip
SHOWN = 8
Candidate = DecodeTuning | PrefillTuning | Plan
Prepared = Callable[[Candidate], list[Work]]
"""Work on memory that is there, with these sizes; one for each of the rotated buffers."""


def decode_shape(machine: Machine, sizes: Sizes, codes: torch.dtype | None, lengths: list[int]) -> Prepared:  # fmt: skip
    kv_dtype = codes or sizes.dtype
    places = [-(-length // sizes.page) for length in lengths]
    nbytes = sum(lengths) * 2 * sizes.kv_heads * sizes.dim * kv_dtype.itemsize
    copies = machine.copies(nbytes)
    order = torch.randperm(sum(places) * copies).tolist()
    shape = (len(order), 2, sizes.kv_heads, sizes.page, sizes.dim)
    pages = normal(machine, *shape, dtype=sizes.dtype).to(kv_dtype)
    ones = torch.ones(sizes.kv_heads, device=machine.device)
    scales, rule = PageScales(ones, ones) if codes else None, SoftmaxRule(sizes.dim**-0.5)
    batches = []
    for _ in range(copies):
        tables = [[order.pop() for _ in range(count)] for count in places]
        host = PagedBatch.of([1] * len(lengths), [n - 1 for n in lengths], tables, sizes.page)
        batches.append(DeviceBatch.of(host, machine.device))
    q = normal(machine, len(lengths), sizes.heads, sizes.dim, dtype=sizes.dtype)
    out = torch.empty_like(q)

    def works(tuning: Candidate) -> list[Work]:
        assert isinstance(tuning, DecodeTuning)
        made: list[Work] = []
        for batch in batches:
            tasks = decode_tasks(
                batch, sizes.kv_heads, window=0, tile=tuning.tile, splits=tuning.splits,
                programs=machine.processors * tuning.programs_per_sm,
                splits_max=int(tuning.splits.counts(np.array(lengths)).sum()),
            )  # fmt: skip
            made.append(
                partial(decode_attention, q, pages, batch, tasks, rule, out, tuning, scales)
            )
        return made

    return works


def prefill_shape(machine: Machine, sizes: Sizes, fresh: bool, context: int, rows: int) -> Prepared:
    places = -(-(context + rows) // sizes.page)
    host = PagedBatch.of([rows], [context], [torch.randperm(places).tolist()], sizes.page)
    batch = DeviceBatch.of(host, machine.device)
    group, rule = sizes.heads // sizes.kv_heads, SoftmaxRule(sizes.dim**-0.5)
    pages = normal(machine, places, 2, sizes.kv_heads, sizes.page, sizes.dim, dtype=sizes.dtype)
    q = normal(machine, rows, sizes.heads, sizes.dim, dtype=sizes.dtype)
    k, v = (normal(machine, rows, sizes.kv_heads, sizes.dim, dtype=sizes.dtype) for _ in range(2))
    out = torch.empty_like(q)

    def works(tuning: Candidate) -> list[Work]:
        assert isinstance(tuning, PrefillTuning)
        tiles = query_tiles(batch, tuning.rows // group)
        if fresh:
            return [partial(fresh_attention, q, k, v, batch, tiles, rule, out, tuning)]
        return [partial(chunk_attention, q, pages, batch, tiles, rule, out, tuning)]

    return works


def weight_shape(machine: Machine, rows: int, n: int, k: int, gated: bool) -> Prepared:
    copies = machine.copies(2 * n * k)
    weights = [normal(machine, n, k, dtype=torch.bfloat16) * k**-0.5 for _ in range(copies)]
    x = normal(machine, rows, k, dtype=torch.bfloat16)
    residual = None if gated else normal(machine, rows, n, dtype=torch.bfloat16)
    scratch, gate = Scratch(machine.device, 2 * PROGRAMS_AIM), Gate.SILU if gated else None

    def works(plan: Candidate) -> list[Work]:
        assert isinstance(plan, Plan)
        return [
            partial(skinny_gemm, x, w, scratch, gate=gate, residual_MN=residual, plan=plan)
            for w in weights
        ]

    return works


def shapes(kind: str, machine: Machine, small: bool) -> dict[str, Prepared]:
    """The shapes of one kind; small ones compile to the same kernels."""
    sizes = Sizes(machine)
    if kind.startswith("decode"):
        codes = torch.float8_e4m3fn if kind.endswith("fp8") else None
        given = {"small": [256] * 2} if small else DECODED
        return {name: decode_shape(machine, sizes, codes, x) for name, x in given.items()}
    if kind in ("chunk", "fresh"):
        runs = {"small": (0, 256)} if small else PREFILLED
        return {
            name: prefill_shape(machine, sizes, kind == "fresh", *run)
            for name, run in runs.items()
            if kind == "chunk" or not run[0]
        }
    _, weight, rows = kind.split("/")
    return {f"{rows} rows": weight_shape(machine, int(rows), *WEIGHTS[weight])}


def candidates(kind: str) -> Sequence[Candidate]:
    if kind.startswith("decode"):
        fp8 = kind.endswith("fp8")
        return [
            DecodeTuning(tile, least, most, warps, stages, programs)
            for tile, warps, stages, programs in itertools.product(
                (64, 128) if fp8 else (32, 64), (4, 8) if fp8 else (2, 4), (3, 4, 5), (2, 3, 4)
            )
            for least, most in ((128, 512), (256, 256), (512, 512))
            if (least, most) == (128, 512) or stages == 4
        ]
    if kind in ("chunk", "fresh"):
        found = [
            PrefillTuning(rows, tile, warps, stages)
            for rows, tile, warps, stages in itertools.product(
                (64, 128), (64, 128), (4, 8), (2, 3, 4)
            )
            if rows * tile // warps <= 128 * 128 // 8 * 2
        ]
        return found
    n, k, gated = WEIGHTS[kind.split("/")[1]]
    outputs = n // 2 if gated else n
    return [
        Plan(64, 128, splits, stages, shared * 1024)
        for splits, (stages, shared) in itertools.product((1, 2, 4, 8), ((4, 112), (8, 200)))
        if (splits == 1 or -(-outputs // 64) * splits <= 2 * PROGRAMS_AIM) and k // splits >= 512
    ]


def compile_share(kind: str, share: Sequence[Candidate]) -> int:
    """Runs each once on something small, so that it lies in the cache on disk; returns how many failed."""
    failed = 0
    machine = Machine.here(dry_run=False)
    with torch.inference_mode():
        for prepared in shapes(kind, machine, small=True).values():
            for candidate in share:
                try:
                    prepared(candidate)[0]()
                except (OutOfResources, PTXASError):
                    failed += 1
    return failed


def compile_all(kinds: Sequence[str]) -> None:
    workers = max(1, (os.cpu_count() or 2) - 2)
    jobs = []
    for kind in kinds:
        found = candidates(kind)
        count = min(workers, max(1, len(found) // 6))
        jobs += [(kind, found[i::count]) for i in range(count)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.starmap(compile_share, jobs, chunksize=1)


def tune(kind: str, report: Report) -> None:
    machine = report.machine
    us: dict[Candidate, list[float]] = {}
    given = shapes(kind, machine, small=False)
    found = list(candidates(kind))
    for number, prepared in enumerate(given.values()):
        for candidate in found:
            if len(us.get(candidate, [])) < number:
                continue
            try:
                took = machine.timing(prepared(candidate)).p50_us
            except (OutOfResources, PTXASError):
                continue
            us.setdefault(candidate, []).append(took)
    whole = {c: row for c, row in us.items() if len(row) == len(given)}
    best = [min(column) for column in zip(*whole.values(), strict=True)]
    score = {
        c: math.exp(sum(math.log(x / y) for x, y in zip(row, best, strict=True)) / len(best))
        for c, row in whole.items()
    }
    table = report.table(f"{kind}: microseconds, {len(whole)} candidates", "score", *given, "sizes")
    for candidate in sorted(whole, key=score.__getitem__)[:SHOWN]:
        table.add(score[candidate], *whole[candidate], repr(candidate))


def main() -> int:
    made = parser(__doc__, "gpu_tune", 240)
    gemms = [f"gemm/{name}/{rows}" for name in WEIGHTS for rows in (1, 32)]
    made.add_argument("--only", nargs="*", default=["decode-bf16", "decode-fp8", "chunk", "fresh", "gemm"])  # fmt: skip
    options = made.parse_args()
    kinds = [kind for name in options.only for kind in (gemms if name == "gemm" else [name])]
    report = Report(Machine.here(options.dry_run), options.seconds, options.json)
    started_s = time.monotonic()
    compile_all(kinds)
    print(f"compiled in {time.monotonic() - started_s:.0f} s", flush=True)
    with torch.inference_mode():
        report.run({kind: partial(tune, kind) for kind in kinds})
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
