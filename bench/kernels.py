"""Claim: our kernels come close to what an H200 can do, and to the best there are. First of three calls, under ten minutes.

    python bench/kernels.py [--dry-run] [--seconds 420] [--json FILE]

Measures the ceilings first (reading, copying, products), then decode and prefill attention, products of a few rows, fused
kernels, sampling and KV copies. Every figure is the median of graph replays over rotated buffers of random data. Prints
tables and writes gpu_kernels.json to $OUT or bench/results.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

if "--dry-run" in sys.argv:  # read when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
import triton.language as tl
from torch.nn import functional as F

from gpu_measure import Machine, Report, Work, parser
from kernel_attention import decode, prefill
from kernel_sizes import CEILING, Sizes, normal
from tercet.kernels.gpu.gated import Gate, gated
from tercet.kernels.gpu.kv_copy import gather_kv, scatter_kv
from tercet.kernels.gpu.kv_int4 import pack_int4, unpack_int4
from tercet.kernels.gpu.residual_norm import residual_norm
from tercet.kernels.gpu.rope_and_write import HeadNorms, Places, Rotation, rope_and_write
from tercet.kernels.gpu.sampling import SamplingScratch, sample
from tercet.kernels.gpu.skinny_gemm import ROWS_MAX, Scratch, skinny_gemm
from tercet.kernels.kv_codec_triton import TritonKvCodec
from tercet.kernels.packed_kv import Codes, packed_bytes, packed_int4_bytes
from tercet.request import Sampling
from tercet.workers.gpu import draw_rows


@triton.jit
def read_kernel(x, out, ELEMENTS: tl.constexpr, TILE: tl.constexpr):
    """Sums `ELEMENTS` fp32 numbers a program."""
    start = tl.program_id(0).to(tl.int64) * ELEMENTS
    total = tl.zeros([TILE], tl.float32)
    for done in range(0, ELEMENTS, TILE):
        total += tl.load(x + start + done + tl.arange(0, TILE))
    tl.store(out + tl.program_id(0), tl.sum(total))


def ceilings(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table("Ceilings", "what", "median", "unit", "spread %")
    count = sizes.read_bytes // 4
    x = torch.randn(count, device=machine.device)
    elements, tile = (4096, 1024) if machine.dry else (65536, 4096)
    out = torch.empty(count // elements, device=machine.device)
    took = machine.timing(
        [lambda: read_kernel[count // elements,](x, out, ELEMENTS=elements, TILE=tile, num_warps=8)]
    )
    CEILING.read_tbs = sizes.read_bytes / took.p50_us / 1e6
    table.add("read", CEILING.read_tbs, "TB/s", 100 * took.spread)
    half = count // 2
    source, target = x[:half].view(-1, 2048), x[half : 2 * half].view(-1, 2048)
    took = machine.timing(
        [lambda: torch.mul(source, 1.0, out=target)]
    )  # memcpy nodes of graphs are slower
    CEILING.copy_tbs = sizes.read_bytes / took.p50_us / 1e6
    table.add("copy, both ways", CEILING.copy_tbs, "TB/s", 100 * took.spread)
    n = sizes.square
    a, b = (normal(machine, n, n, dtype=sizes.dtype) for _ in range(2))
    took = machine.timing([lambda: a @ b])
    CEILING.product_tf = 2 * n**3 / took.p50_us / 1e6
    table.add(f"product {n} cubed", CEILING.product_tf, "TF/s", 100 * took.spread)


def products(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table(
        "Products with a layer's weights", "weight", "rows", "library us", "ours us", "spread %",
        "TB/s of the better", "TF/s of the better", "% of floor", "library / ours",
    )  # fmt: skip
    scratch = Scratch(machine.device)
    for name, (n, k) in sizes.layers.items():
        nbytes = n * k * sizes.dtype.itemsize
        weights = [
            normal(machine, n, k, dtype=sizes.dtype) * k**-0.5
            for _ in range(machine.copies(nbytes))
        ]
        for rows in sizes.rows:
            x = normal(machine, rows, k, dtype=sizes.dtype)
            library = machine.timing([lambda w=w, x=x: F.linear(x, w) for w in weights])
            ours = library
            if rows <= ROWS_MAX:
                ours = machine.timing(
                    [lambda w=w, x=x: skinny_gemm(x, w, scratch) for w in weights]
                )
            best_us = min(library.p50_us, ours.p50_us)
            tbs, tf = nbytes / best_us / 1e6, 2 * rows * n * k / best_us / 1e6
            floor_us = max(nbytes / CEILING.read_tbs, 2 * rows * n * k / CEILING.product_tf) / 1e6
            table.add(
                name, rows, library.p50_us, ours.p50_us if rows <= ROWS_MAX else "-",
                100 * ours.spread, tbs, tf, 100 * floor_us / best_us,
                library.p50_us / ours.p50_us if rows <= ROWS_MAX else "-",
            )  # fmt: skip


def fused(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table("Fused kernels", "kernel", "rows", "us", "spread %", "TB/s", "% of copy")
    width, inner = sizes.heads * sizes.dim, 4 * sizes.heads * sizes.dim
    heads = sizes.heads + 2 * sizes.kv_heads
    scale, item = torch.ones(width, device=machine.device), sizes.dtype.itemsize
    for rows in sizes.fused_rows:
        cases = {
            "residual + norm": (norm_work(machine, sizes, rows, width, scale), 4 * rows * width * item),
            "gate": (gate_work(machine, sizes, rows, inner), 3 * rows * inner * item),
            "norms + rope + KV write": (rope_work(machine, sizes, rows), 2 * rows * heads * sizes.dim * item),
        }  # fmt: skip
        for name, (make, nbytes) in cases.items():
            took = machine.timing([make() for _ in range(machine.copies(nbytes))])
            tbs = nbytes / took.p50_us / 1e6
            table.add(name, rows, took.p50_us, 100 * took.spread, tbs, 100 * tbs / CEILING.copy_tbs)


def norm_work(
    machine: Machine, sizes: Sizes, rows: int, width: int, scale: torch.Tensor
) -> Callable[[], Work]:
    def make() -> Work:
        x, residual = (normal(machine, rows, width, dtype=sizes.dtype) for _ in range(2))
        return lambda: residual_norm(x, residual, scale, 1e-6)

    return make


def gate_work(machine: Machine, sizes: Sizes, rows: int, inner: int) -> Callable[[], Work]:
    def make() -> Work:
        x = normal(machine, rows, 2 * inner, dtype=sizes.dtype)
        return lambda: gated(x, Gate.SILU)

    return make


def rope_work(machine: Machine, sizes: Sizes, rows: int) -> Callable[[], Work]:
    """Every row is the first one of a request."""
    angles = normal(machine, 2, sizes.dim, dtype=torch.float32)
    ones = torch.ones(sizes.dim, device=machine.device)

    def make() -> Work:
        qkv = normal(machine, rows, sizes.heads + 2 * sizes.kv_heads, sizes.dim, dtype=sizes.dtype)
        q, k, v = torch.split(qkv, [sizes.heads, sizes.kv_heads, sizes.kv_heads], 1)
        pages = normal(machine, rows, 2, sizes.kv_heads, sizes.page, sizes.dim, dtype=sizes.dtype)
        positions, requests = torch.zeros((2, rows), dtype=torch.int32, device=machine.device)
        requests.copy_(torch.arange(rows))
        places = Places(positions, requests, requests[:, None].contiguous(), positions[None])
        norms = HeadNorms(ones, ones, 1e-6)
        return lambda: rope_and_write(q, k, v, pages, places, Rotation(angles), norms=norms)

    return make


def sampling(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table("Sampling", "how", "rows", "us", "spread %", "TB/s of logits")
    kinds = {
        "greedy": Sampling(),
        "temperature": Sampling(temperature=1.0),
        "top-k 50": Sampling(temperature=1.0, top_k=50),
        "top-p 0.9": Sampling(temperature=1.0, top_p=0.9),
    }
    cases = {name: (4.0, kind) for name, kind in kinds.items()}
    cases["top-p 0.9, flat"] = (1.0, kinds["top-p 0.9"])
    for rows in sizes.sampled:
        normals = normal(machine, rows, sizes.vocab, dtype=sizes.dtype)
        scratch = SamplingScratch(rows, sizes.vocab, machine.device)
        for name, (spread, kind) in cases.items():
            logits = normals * spread
            draws = draw_rows.draw_rows(rows, machine.device)
            draw_rows.write(draws, [kind] * rows)
            took = machine.timing([partial(sample, logits, draws, scratch)])
            tbs = logits.nbytes / took.p50_us / 1e6
            table.add(name, rows, took.p50_us, 100 * took.spread, tbs)


def kv_copies(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table("KV blocks to staging memory and back", "MiB", "what", "us", "TB/s, read and written", "% of copy")  # fmt: skip
    for nbytes in sizes.copied:
        for name, (work, moved) in copy_works(machine, sizes, nbytes).items():
            took = machine.timing([work])
            tbs = moved / took.p50_us / 1e6
            table.add(nbytes / 2**20, name, took.p50_us, tbs, 100 * tbs / CEILING.copy_tbs)


def copy_works(machine: Machine, sizes: Sizes, nbytes: int) -> dict[str, tuple[Work, int]]:
    """And the bytes that each moves: plain, packed to a byte an element, and to four bits."""
    groups, elements = sizes.kv_heads * 2, sizes.page * sizes.dim
    block_bytes = groups * elements * sizes.dtype.itemsize
    blocks = max(1, nbytes // block_bytes)
    pages = normal(machine, 2 * blocks, groups, elements, dtype=sizes.dtype)
    chosen = torch.randperm(2 * blocks, device=machine.device)[:blocks]
    codec = TritonKvCodec()

    def staging(width: int) -> torch.Tensor:
        return torch.zeros(blocks, width, dtype=torch.uint8, device=machine.device)

    plain, byte, nibble = (
        staging(width)
        for width in (
            block_bytes,
            packed_bytes(groups, elements),
            packed_int4_bytes(groups, elements),
        )
    )
    return {
        "gather": (lambda: gather_kv(pages, chosen, plain), 2 * plain.nbytes),
        "scatter": (lambda: scatter_kv(pages, chosen, plain), 2 * plain.nbytes),
        "pack to fp8": (
            lambda: codec.pack(pages, chosen, byte, Codes.FP8),
            plain.nbytes + byte.nbytes,
        ),
        "unpack from fp8": (
            lambda: codec.unpack(pages, chosen, byte, Codes.FP8),
            plain.nbytes + byte.nbytes,
        ),
        "pack to int4": (lambda: pack_int4(pages, chosen, nibble), plain.nbytes + nibble.nbytes),
        "unpack from int4": (
            lambda: unpack_int4(pages, chosen, nibble),
            plain.nbytes + nibble.nbytes,
        ),
    }


def main() -> int:
    options = parser(__doc__, "gpu_kernels", 420).parse_args()
    torch.manual_seed(0)
    report = Report(Machine.here(options.dry_run), options.seconds, options.json)
    with torch.inference_mode():
        report.run(
            {
                "ceilings": ceilings,
                "decode attention": decode,
                "prefill attention": prefill,
                "products": products,
                "fused kernels": fused,
                "sampling": sampling,
                "KV copies": kv_copies,
            }
        )
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
