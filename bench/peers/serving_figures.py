"""What is reported of served models: figures of each round, what they come to, and a table."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from figures import quantile
from streams import Answer

OURS = "tercet"


class Setting(NamedTuple):
    """What is compared with each other."""

    deployment: str
    model: str
    dtype: str
    at_once: int


@dataclass(frozen=True, slots=True)
class Round:
    """One side, once. Times are in milliseconds."""

    setting: Setting
    side: str
    threads: int
    number: int
    tokens_per_s: float
    ttft_ms: list[float]
    itl_ms: list[float]
    tokens_per_event: float
    cpu_ms_per_token: float
    """Processor time of all its processes."""
    idle_before: float
    """Share of the machine that nobody used just before."""
    words: list[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Row:
    """One side over all rounds; percentiles are those of all its requests and all gaps between events."""

    setting: Setting
    side: str
    threads: int
    rounds: int
    tokens_per_s: float
    """Median of the rounds."""
    tokens_per_s_min: float
    tokens_per_s_max: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    itl_ms_p50: float
    itl_ms_p99: float
    tokens_per_event: float
    cpu_ms_per_token: float
    idle_before_min: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """Our side through theirs, each with the number of threads that suits it best. Of times, less is better."""

    setting: Setting
    threads: tuple[int, int]
    tokens_per_s: float
    ttft_p50: float
    ttft_p99: float
    itl_p50: float
    itl_p99: float
    same_tokens: int
    """Answers whose tokens are the same; in types other than fp32 rounding decides."""
    answers: int


def round_of(
    setting: Setting,
    side: str,
    threads: int,
    number: int,
    answers: Sequence[Answer],
    cpu_s: float,
    idle_before: float,
) -> Round:
    took_s = max(each.came_s[-1] for each in answers) - min(each.sent_s for each in answers)
    tokens = sum(len(each.words) for each in answers)
    return Round(
        setting=setting,
        side=side,
        threads=threads,
        number=number,
        tokens_per_s=tokens / took_s,
        ttft_ms=[1e3 * each.ttft_s for each in answers],
        itl_ms=[1e3 * gap_s for each in answers for gap_s in each.gaps_s],
        tokens_per_event=tokens / sum(len(each.came_s) for each in answers),
        cpu_ms_per_token=1e3 * cpu_s / tokens,
        idle_before=idle_before,
        words=[each.words for each in answers],
    )


def row_of(rounds: Sequence[Round]) -> Row:
    """Of one side with one number of threads."""
    first = rounds[0]
    rates = [each.tokens_per_s for each in rounds]
    ttft_ms = [ms for each in rounds for ms in each.ttft_ms]
    itl_ms = [ms for each in rounds for ms in each.itl_ms]
    return Row(
        setting=first.setting,
        side=first.side,
        threads=first.threads,
        rounds=len(rounds),
        tokens_per_s=statistics.median(rates),
        tokens_per_s_min=min(rates),
        tokens_per_s_max=max(rates),
        ttft_ms_p50=quantile(ttft_ms, 0.5),
        ttft_ms_p99=quantile(ttft_ms, 0.99),
        itl_ms_p50=quantile(itl_ms, 0.5),
        itl_ms_p99=quantile(itl_ms, 0.99),
        tokens_per_event=statistics.fmean(each.tokens_per_event for each in rounds),
        cpu_ms_per_token=statistics.median(each.cpu_ms_per_token for each in rounds),
        idle_before_min=min(each.idle_before for each in rounds),
    )


def rows_of(rounds: Sequence[Round]) -> list[Row]:
    keys = dict.fromkeys((each.setting, each.side, each.threads) for each in rounds)
    return [
        row_of([each for each in rounds if (each.setting, each.side, each.threads) == key])
        for key in sorted(keys)
    ]


def ratios_of(rows: Sequence[Row], rounds: Sequence[Round]) -> list[Ratio]:
    """Of every setting that both sides were measured in."""
    ratios = []
    for setting in dict.fromkeys(row.setting for row in rows):
        best: dict[bool, Row] = {}
        for row in sorted(rows, key=lambda row: row.tokens_per_s):
            if row.setting == setting:
                best[row.side == OURS] = row
        if len(best) == 2:
            ratios.append(_ratio(best[True], best[False], rounds))
    return ratios


def _ratio(ours: Row, theirs: Row, rounds: Sequence[Round]) -> Ratio:
    said = {
        (each.side, each.number): each.words
        for each in rounds
        if each.setting == ours.setting
        and (each.side, each.threads) in {(row.side, row.threads) for row in (ours, theirs)}
    }
    pairs = [
        pair
        for (side, number), words in said.items()
        if side == ours.side and (theirs.side, number) in said
        for pair in zip(words, said[theirs.side, number], strict=True)
    ]
    return Ratio(
        setting=ours.setting,
        threads=(ours.threads, theirs.threads),
        tokens_per_s=ours.tokens_per_s / theirs.tokens_per_s,
        ttft_p50=ours.ttft_ms_p50 / theirs.ttft_ms_p50,
        ttft_p99=ours.ttft_ms_p99 / theirs.ttft_ms_p99,
        itl_p50=ours.itl_ms_p50 / theirs.itl_ms_p50,
        itl_p99=ours.itl_ms_p99 / theirs.itl_ms_p99,
        same_tokens=sum(a == b for a, b in pairs),
        answers=len(pairs),
    )


def show(rows: Sequence[Row], ratios: Sequence[Ratio]) -> None:
    """Sides beneath each other, then what ours is of the other."""
    console = Console(width=180)
    table = Table(title="Served over HTTP")
    for name in ("deployment", "model", "type", "at once", "side", "threads"):
        table.add_column(name)
    for name in ("tokens/s", "TTFT ms p50 / p99", "ITL ms p50 / p99", "tokens/event"):
        table.add_column(name, justify="right")
    table.add_column("CPU ms/token", justify="right")
    table.add_column("idle", justify="right")
    for row in rows:
        table.add_row(
            *(*map(str, row.setting), row.side, str(row.threads)),
            f"{row.tokens_per_s:,.0f} ({row.tokens_per_s_min:,.0f}-{row.tokens_per_s_max:,.0f})",
            f"{row.ttft_ms_p50:,.1f} / {row.ttft_ms_p99:,.1f}",
            f"{row.itl_ms_p50:,.1f} / {row.itl_ms_p99:,.1f}",
            *(f"{row.tokens_per_event:.2f}", f"{row.cpu_ms_per_token:.2f}"),
            f"{row.idle_before_min:.0%}",
        )
    console.print(table)
    table = Table(title="Tercet through the other, each with its better number of threads")
    for name in ("deployment", "model", "type", "at once", "threads"):
        table.add_column(name)
    for name in ("tokens/s", "TTFT p50 / p99", "ITL p50 / p99", "same tokens"):
        table.add_column(name, justify="right")
    for ratio in ratios:
        table.add_row(
            *(*map(str, ratio.setting), "{} : {}".format(*ratio.threads)),
            f"{ratio.tokens_per_s:.2f}",
            f"{ratio.ttft_p50:.2f} / {ratio.ttft_p99:.2f}",
            f"{ratio.itl_p50:.2f} / {ratio.itl_p99:.2f}",
            f"{ratio.same_tokens} of {ratio.answers}",
        )
    console.print(table)
