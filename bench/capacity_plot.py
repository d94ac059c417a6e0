"""What was measured of capacities, as a picture: of each situation, everybody's cap99 as a share of the ceiling."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from capacity_cells import TERCET, Cell
from router_capacity import CEILING, Row

HEIGHT_IN = 0.3
"""Of a situation."""


def plot(rows: Sequence[Row], path: Path) -> None:
    ceilings = {row.cell: row.cap99 for row in rows if row.contender == CEILING}
    cells = [cell for cell in ceilings if _shares(rows, cell, ceilings[cell])]
    figure = Figure(figsize=(10, 1.5 + HEIGHT_IN * len(cells)), layout="constrained")
    axes = figure.subplots()
    for place, cell in enumerate(cells):
        shares = _shares(rows, cell, ceilings[cell])
        others = [share for name, share in shares.items() if name != TERCET.name]
        axes.scatter(others, [place] * len(others), marker="|", s=90, c="tab:gray", label="others")
        if TERCET.name in shares:
            axes.scatter(shares[TERCET.name], place, s=45, c="tab:red", label=TERCET.name)
    axes.set_yticks(range(len(cells)), [str(cell) for cell in cells], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.05)
    axes.axvline(1, linewidth=0.8, color="black")
    axes.set_xlabel(
        "requests a second with 99 % of first tokens within 5 s, as a share of the ceiling"
    )
    axes.grid(axis="x", linewidth=0.4)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axes.legend(unique.values(), unique.keys(), loc="lower left")
    figure.savefig(path, dpi=110)


def _shares(rows: Sequence[Row], cell: Cell, ceiling: float) -> dict[str, float]:
    """By contender."""
    if not ceiling:
        return {}
    mine = (row for row in rows if row.cell == cell and row.contender != CEILING)
    return {row.contender: row.cap99 / ceiling for row in mine}
