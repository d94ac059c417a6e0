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


def attention(axes: Axes, rows: list[Row], name: str, rate: str) -> None:
    """Ours, and FlashAttention-3's from the ratio of the same run."""
    ours = [float(row[rate]) for row in rows]
    peer = [x / float(row[FA3]) for x, row in zip(ours, rows, strict=True)]
    sides = {"tercet": (ours, OURS), "FlashAttention-3": (peer, PEER)}
    bars(axes, [str(row[name]) for row in rows], sides)


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--results", type=Path, default=RESULTS)
    made.add_argument("--png", type=Path, default=RESULTS / "gpu.png")
    options = made.parse_args()
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    decode_steps(left, options.results / "gpu_engine.json")
    kernels = options.results / "gpu_kernels.json"
    decode = [r for r in rows_of(kernels, "Decode attention") if r["kv"] == "bfloat16"]
    attention(middle, decode, "lengths", "TB/s of KV")
    middle.set_title("Decode attention, TB/s of KV", fontsize=9)
    prefill = [r for r in rows_of(kernels, "Prefill attention") if r["kernel"] == "fresh"]
    attention(right, prefill, "rows", "TF/s")
    right.set_title("Prefill attention, TF/s", fontsize=9)
    figure.savefig(options.png, dpi=110)


if __name__ == "__main__":
    main()
