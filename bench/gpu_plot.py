"""Draws what an H200 said: python bench/gpu_plot.py [--results bench/results] [--png FILE]

Left: decode steps against their floor. Middle: decode attention, and right: prefill attention, beside FlashAttention-3 in the same run.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
OURS, PEER, FLOOR = "#1f5fa8", "#c8742c", "#999999"
FA3 = "FA3 / ours"
Row = dict[str, str | float]


def rows_of(path: Path, title: str) -> list[Row]:
    """A table of a report."""
    tables = json.loads(path.read_text())["tables"]
    (table,) = [table for table in tables if table["title"].startswith(title)]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def bars(axes: Axes, names: list[str], sides: dict[str, tuple[list[float], str]]) -> None:
    width = 0.8 / len(sides)
    for number, (label, (values, colour)) in enumerate(sides.items()):
        at = [i + (number - (len(sides) - 1) / 2) * width for i in range(len(names))]
        axes.bar(at, values, width, label=label, color=colour)
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    axes.legend(fontsize=7)


def decode_steps(axes: Axes, engine: Path) -> None:
    rows = [row for row in rows_of(engine, "Decode") if row["sampling"] == "greedy"]
    names = [f"{row['batch']} x {int(row['context']) // 1024}k" for row in rows]
    floor = [float(row["floor ms"]) for row in rows]
    bars(axes, names, {"floor": (floor, FLOOR), "tercet": ([float(r["ms"]) for r in rows], OURS)})
    axes.set_title("Decode step, Llama-3.1-8B bf16, ms", fontsize=9)


def decode_attention(axes: Axes, kernels: Path) -> None:
    rows = [row for row in rows_of(kernels, "Decode attention") if row["kv"] == "bfloat16"]
    ours = [float(row["TB/s of KV"]) for row in rows]
    peer = [x / float(row[FA3]) for x, row in zip(ours, rows, strict=True)]
    bars(axes, [str(r["lengths"]) for r in rows], {"tercet": (ours, OURS), "FlashAttention-3": (peer, PEER)})  # fmt: skip
    axes.set_title("Decode attention, TB/s of KV", fontsize=9)


def prefill_attention(axes: Axes, kernels: Path) -> None:
    rows = [row for row in rows_of(kernels, "Prefill attention") if row["kernel"] == "fresh"]
    ours = [float(row["TF/s"]) for row in rows]
    peer = [x / float(row[FA3]) for x, row in zip(ours, rows, strict=True)]
    bars(axes, [str(r["rows"]) for r in rows], {"tercet": (ours, OURS), "FlashAttention-3": (peer, PEER)})  # fmt: skip
    axes.set_title("Prefill attention, TF/s", fontsize=9)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--png", type=Path, default=RESULTS / "gpu.png")
    options = made.parse_args()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    decode_steps(left, options.results / "gpu_engine.json")
    decode_attention(middle, options.results / "gpu_kernels.json")
    prefill_attention(right, options.results / "gpu_kernels.json")
    figure.savefig(options.png, dpi=110)


if __name__ == "__main__":
    main()
