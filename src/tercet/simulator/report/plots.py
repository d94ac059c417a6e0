"""Pictures as SVG that takes its colours from the page around it, so that they suit light and dark."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter
from matplotlib.typing import RcKeyType

from tercet.simulator.results import LoadSeries
from tercet.simulator.summary import duration

INK, GRID, FIRST, SECOND = "#010203", "#010204", "#010205", "#010206"
"""Stand-ins: what is drawn in these colours gets the page's."""
ON_PAGE = {INK: "--ink", GRID: "--grid", FIRST: "--first", SECOND: "--second"}
LOAD_RGB = (0x2A / 255, 0x78 / 255, 0xD6 / 255)
"""Of full load; less is more transparent, so that nothing is the page's own colour."""

SIZE_IN = (4.6, 2.5)
NAMED_WORKERS_MAX = 16
LOAD_COLUMNS_MAX = 120
SMOOTHED = 25
"""A share is averaged over so many points, by what they stand for."""

_STYLE: dict[RcKeyType, object] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}


def distribution(name: str, curve_s: Sequence[float], promised_s: float) -> Markup:
    """Which share of the requests took at most how long."""
    with _drawn(name) as (axes, picture):
        shares = np.linspace(0.0, 1.0, len(curve_s))
        axes.plot(curve_s, shares, color=FIRST)
        axes.axvline(promised_s, color=SECOND, linestyle="--", linewidth=1.2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
        axes.xaxis.set_minor_formatter(lambda value, _: "")
        axes.set_ylim(0, 1.01)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return picture()


def lines(name: str, times_s: Sequence[float], **columns: Sequence[float]) -> Markup:
    """One or two counts over time."""
    with _drawn(name) as (axes, picture):
        for colour, (label, column) in zip((SECOND, FIRST), columns.items(), strict=False):
            axes.plot(times_s, column, color=colour, label=label)
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        _seconds(axes)
    return picture()


def share(
    name: str,
    times_s: Sequence[float],
    shares: Sequence[float | None],
    weights: Sequence[float],
) -> Markup:
    """A share over time, averaged over neighbours by their weights."""
    values = np.array([0.0 if value is None else value for value in shares])
    present = np.array([value is not None for value in shares], dtype=float)
    counted = present * np.array(weights)
    window = np.ones(min(SMOOTHED, len(values)))
    total = np.convolve(counted, window, mode="same")
    mean = np.convolve(values * counted, window, mode="same") / np.where(total, total, np.nan)
    with _drawn(name) as (axes, picture):
        axes.plot(times_s, mean, color=FIRST)
        axes.set_ylim(0, 1.01)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        _seconds(axes)
    return picture()


def load(series: LoadSeries) -> Markup:
    """A row for each worker, the fuller the busier."""
    workers = list(series.workers)
    busy = _fewer(np.array([series.workers[worker] for worker in workers])[:, 1:])
    cells = np.empty((*busy.shape, 4))
    cells[..., :3], cells[..., 3] = LOAD_RGB, busy.clip(0.0, 1.0)
    with _drawn("load") as (axes, picture):
        extent = (series.times_s[0], series.times_s[-1], len(workers) - 0.5, -0.5)
        axes.imshow(cells, aspect="auto", interpolation="nearest", extent=extent)
        axes.grid(False)
        if len(workers) <= NAMED_WORKERS_MAX:
            axes.set_yticks(range(len(workers)), workers)
        else:
            axes.set_yticks([0, len(workers) - 1], [workers[0], workers[-1]])
        axes.tick_params(axis="y", length=0)
        _seconds(axes)
    return picture()


def _fewer(rows: np.ndarray) -> np.ndarray:
    """Means of neighbours, so that there are not too many."""
    points = rows.shape[1]
    firsts = np.arange(0, points, -(-points // LOAD_COLUMNS_MAX))
    counts = np.diff(np.append(firsts, points))
    return np.asarray(np.add.reduceat(rows, firsts, axis=1) / counts)


def _seconds(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f} s"))
    axes.margins(x=0)


class Picture:
    """A figure and, when it is complete, its SVG."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.figure = Figure(figsize=SIZE_IN, layout="constrained")
        self._text = io.StringIO()

    def __call__(self) -> Markup:
        return Markup(_on_page(self._name, self._text.getvalue()))

    def draw(self) -> None:
        self.figure.savefig(self._text, format="svg", transparent=True, metadata={"Date": None})


@contextmanager
def _drawn(name: str) -> Iterator[tuple[Axes, Picture]]:
    """Axes to draw on; the picture is there when the context has been left."""
    with rc_context(_STYLE | {"svg.hashsalt": name}):
        picture = Picture(name)
        yield picture.figure.subplots(), picture
        picture.draw()


def _on_page(name: str, svg: str) -> str:
    """The `<svg>` element alone, with the page's colours and ids of its own."""
    svg = svg[svg.index("<svg") :]
    for colour, variable in ON_PAGE.items():
        svg = svg.replace(colour, f"var({variable})")
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    head, rest = svg.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest
