"""Claim: activations that do not depend on the batch cost no more than torch's.

    python bench/activation.py

One thread, the gate's half of a merged product, best of 50 of its processor time; one row is one decode.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from tercet.kernels.activation import Form, NativeActivation

DEPTH = 2048


def best_us(call: Callable[[], object]) -> float:
    times = []
    for _ in range(50):
        began_s = time.process_time()
        for _ in range(10):
            call()
        times.append((time.process_time() - began_s) / 10)
    return 1e6 * min(times)


def main() -> None:
    torch.set_num_threads(1)
    table = Table(title=f"Activations of {DEPTH} features, µs")
    for head in ("form", "type", "rows", "torch", "ours"):
        table.add_column(head, justify="right")
    for form in Form:
        for dtype in (torch.float32, torch.bfloat16):
            ours = NativeActivation(dtype)
            for rows in (1, 16, 512):
                x = torch.randn(rows, 2 * DEPTH).to(dtype)[:, :DEPTH]
                theirs_us, ours_us = best_us(partial(form.twin, x)), best_us(partial(ours, x, form))
                name = str(dtype).removeprefix("torch.")
                table.add_row(form.name, name, str(rows), f"{theirs_us:.0f}", f"{ours_us:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
