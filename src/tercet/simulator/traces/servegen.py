"""ServeGen's folders (Alibaba): for each client its rates, burstiness and lengths, from which requests are drawn.

`chunk-N-trace.csv` has a row for each ten minutes: start, requests a second, coefficient of variation, distribution of gaps
(Gamma or Weibull) and its two parameters, the shape and the scale, of which the rate replaces the second.
`chunk-N-dataset.json` has distributions of lengths for each six hours. Contents are unknown, so nothing is shared. Images,
audio and video count with their tokens in the prompt; encoding them is not modelled.
"""

import heapq
import random
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from tercet.errors import TraceError
from tercet.simulator.traces.arrival import Arrival
from tercet.simulator.traces.format import ArrivalFormat, ReadOptions
from tercet.simulator.traces.lengths import Empirical, Fixed, Lengths
from tercet.simulator.traces.lines import csv_rows, opened, refused
from tercet.simulator.traces.naming import salt_of, stream_names
from tercet.simulator.traces.renewal import GammaGaps, Period, WeibullGaps, arrival_times

WINDOW_S = 600.0
MEDIA = ("image", "audio", "video")
PROMPT_TOKENS_MAX = 1 << 22

_CHUNK = re.compile(r"chunk-(\d+)-trace\.csv")


class Row(msgspec.Struct):
    start_s: Annotated[float, Meta(ge=0, le=1e9)]
    per_s: Annotated[float, Meta(ge=0, le=1e6)]
    cv: float
    gaps: Literal["Gamma", "Weibull", ""]
    shape: Annotated[float, Meta(ge=0, le=1e6)]
    scale: float


class Sizes(NamedTuple):
    """The lengths of one stretch of time: a prompt is its text and each medium's count times its tokens."""

    text: Lengths
    media: tuple[tuple[Lengths, Lengths], ...]
    output: Lengths

    def drawing(self, dice: random.Random) -> Callable[[], tuple[int, int]]:
        text, output = self.text.drawing(dice), self.output.drawing(dice)
        media = [(count.drawing(dice), tokens.drawing(dice)) for count, tokens in self.media]

        def draw() -> tuple[int, int]:
            prompt = text() + sum(tokens() for count, tokens in media for _ in range(count()))
            return min(PROMPT_TOKENS_MAX, max(1, prompt)), max(1, output())

        return draw


def read(path: Path, options: ReadOptions, remarks: Counter[str]) -> Iterator[Arrival]:
    """`span_s` seconds of all clients of a folder, in the order of time."""
    if not path.is_dir():
        raise TraceError(str(path), 0, "", "is no folder of chunk-N-trace.csv files")
    chunks = sorted(int(found[1]) for file in path.iterdir() if (found := _CHUNK.match(file.name)))
    clients = [_client(path, chunk, options) for chunk in chunks]
    yield from heapq.merge(*clients, key=lambda arrival: arrival.at_s)


def _client(path: Path, chunk: int, options: ReadOptions) -> Iterator[Arrival]:
    dice = random.Random(f"{options.seed}/{chunk}")
    salt = salt_of("servegen", path.name, chunk)
    periods = list(_periods(path / f"chunk-{chunk}-trace.csv", options.span_s))
    if not any(period.per_s for period in periods):
        return
    drawings = [
        (start_s, sizes.drawing(dice))
        for start_s, sizes in _sizes(path / f"chunk-{chunk}-dataset.json", options)
    ]
    starts = [start_s for start_s, _ in drawings]
    for number, at_s in enumerate(arrival_times(periods, dice)):
        prompt, output = drawings[max(0, bisect_right(starts, at_s) - 1)][1]()
        names = stream_names(salt, number, 0, prompt // options.block_tokens)
        yield Arrival(at_s, prompt, output, names, tenant=f"chunk-{chunk}")


def _periods(path: Path, span_s: float) -> Iterator[Period]:
    columns = list(Row.__struct_fields__)
    for number, row in csv_rows(path, Row, columns):
        if row.start_s >= span_s:
            return
        if row.per_s and not (row.gaps and row.shape):
            raise TraceError(str(path), number, "gaps", "a rate needs a distribution of gaps")
        gaps = WeibullGaps(row.shape) if row.gaps == "Weibull" else GammaGaps(row.shape)
        yield Period(row.start_s, min(span_s, row.start_s + WINDOW_S), row.per_s, gaps)


def _sizes(path: Path, options: ReadOptions) -> list[tuple[float, Sizes]]:
    """Lengths by the second they begin to hold at; stretches in which nothing was measured have none."""
    if options.prompt and options.output:
        return [(0.0, Sizes(options.prompt, (), options.output))]
    if not path.exists():
        reason = "is missing: the folder holds rates only; give lengths for prompt and output"
        raise TraceError(str(path), 0, "", reason)
    with opened(path) as file:
        try:
            windows = msgspec.json.decode(file.read(), type=dict[str, dict[str, str]])
        except msgspec.DecodeError as exc:
            raise refused(path, 0, exc) from exc
    found = []
    for start_s, window in windows.items():
        maps = {name: _map(path, f"{start_s}.{name}", text) for name, text in window.items()}
        text, output = (
            maps.get("input_tokens") or maps.get("text_tokens"),
            maps.get("output_tokens"),
        )
        if text and output:
            media = [(maps.get(f"{kind}_count"), maps.get(f"{kind}_tokens")) for kind in MEDIA]
            counted = tuple((count, tokens) for count, tokens in media if count and tokens)
            found.append((float(start_s), Sizes(text, counted, output)))
    if not found:
        raise TraceError(str(path), 0, "", "no stretch of time has input and output tokens")
    return sorted(found, key=lambda item: item[0])


def _map(path: Path, field: str, text: str) -> Lengths | None:
    """A distribution written `{value: probability, …}`; None if it is empty."""
    entries = [entry.partition(":") for entry in text.strip("{} ").split(",") if entry]
    try:
        values = [round(float(value)) for value, _, _ in entries]
        weights = [float(weight) for _, _, weight in entries]
        if not values:
            return None
        return Fixed(values[0]) if len(values) == 1 else Empirical(values, weights)
    except (ValueError, OverflowError) as exc:
        raise TraceError(str(path), 0, field, f"no map of values to shares: {exc}") from exc


def recognises(path: Path, head: str) -> bool:
    return path.is_dir() and any(_CHUNK.match(file.name) for file in path.iterdir())


SERVEGEN = ArrivalFormat("servegen", recognises, read, own_clock=True)
