"""Claim: weights of 8-bit floats make a layer's products faster than plain ones of twice the bytes, for few rows and many.

    python bench/fp8_products.py [--dry-run] [--seconds 120] [--json FILE]

The same product with a plain weight and with 8-bit floats, scaled by row (many rows are then rounded and multiplied in 8
bits) and by block (they are not). The error is that of the norm, against the plain weight that is meant, in fp32. Every
figure is the median of graph replays over rotated buffers. Writes gpu_fp8_products.json to $OUT or bench/results.
"""

import os
import sys
from functools import partial
from typing import NamedTuple

if "--dry-run" in sys.argv:  # read when a kernel is defined
    os.environ["TRITON_INTERPRET"] = "1"

import torch
from torch import nn

from gpu_measure import Machine, Report, parser
from kernel_sizes import Sizes, normal
from tercet.kernels.gpu.skinny_gemm import GROUP, Scratch
from tercet.workers.gpu.product import Product
from tercet.workers.gpu.weights import merged
from tercet.workers.quantised.fp8_weight import CODES, Fp8Linear, Fp8Weight


class Variants(NamedTuple):
    """One layer stored in three ways."""

    products: list[Product]
    row: Fp8Weight
    block: Fp8Weight


def variants(machine: Machine, sizes: Sizes, n: int, k: int, scratch: Scratch) -> Variants:
    codes = (60 * normal(machine, n, k, dtype=torch.float32)).clamp(-448, 448).to(CODES)

    def scaled(groups: int, group: int) -> Fp8Weight:
        scales = torch.rand(groups, n, device=machine.device).T * k**-0.5 / 30
        return Fp8Weight(codes, scales, group, rounds_inputs=True)

    row, block = scaled(1, k), scaled(-(-k // GROUP), GROUP)
    with torch.device("meta"):
        linear = nn.Linear(k, n, bias=False)
    linear.weight = nn.Parameter(row.dense(sizes.dtype), requires_grad=False)
    products = []
    for layer in (linear, Fp8Linear(row, None), Fp8Linear(block, None)):
        weight = merged([layer], scratch)
        assert weight is not None
        products.append(Product(weight, None))
    return Variants(products, row, block)


def products(report: Report) -> None:
    machine, sizes = report.machine, Sizes(report.machine)
    table = report.table(
        "Products with weights of 8 bits", "weight", "rows", "plain us", "by row us", "by block us",
        "plain / by row", "plain / by block", "error % by row", "error % by block",
    )  # fmt: skip
    scratch = Scratch(machine.device)
    for name, (n, k) in sizes.layers.items():
        layers = [variants(machine, sizes, n, k, scratch) for _ in range(machine.copies(n * k))]
        for rows in sizes.rows:
            x = normal(machine, rows, k, dtype=sizes.dtype)
            plain, by_row, by_block = (
                machine.timing([partial(layer.products[i], x) for layer in layers]).p50_us
                for i in range(3)
            )
            _, row, block = layers[0].products
            table.add(
                name, rows, plain, by_row, by_block, plain / by_row, plain / by_block,
                _error(row(x), x, layers[0].row), _error(block(x), x, layers[0].block),
            )  # fmt: skip


def _error(out: torch.Tensor, x: torch.Tensor, weight: Fp8Weight) -> float:
    """In percent of the exact product's norm."""
    exact = x.float() @ weight.dense(torch.float32).T
    return 100 * float((out.float() - exact).norm() / exact.norm())


def main() -> int:
    options = parser(__doc__, "gpu_fp8_products", 120).parse_args()
    torch.manual_seed(0)
    report = Report(Machine.here(options.dry_run), options.seconds, options.json)
    with torch.inference_mode():
        report.run({"products": products})
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
