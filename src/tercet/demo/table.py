"""One table: each request, where it ran, what moved, how fast it was."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from tercet.ids import RequestId
from tercet.router.record import RequestRecord

COLUMNS = (
    "prompt tokens",
    "cached",
    "output",
    "KV pulled",
    "pull ms",
    "TTFT ms",
    "ITL ms",
)


def request_table(records: Sequence[RequestRecord], doors: Mapping[RequestId, str]) -> Table:
    """The records, oldest first; `doors` names the entrance of each."""
    table = Table("request", "door", "prefill", "decode", title="What became of them")
    table.title_justify = "left"
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for record in records:
        table.add_row(
            record.request[-8:],
            doors.get(record.request, ""),
            record.prefill_worker or f"{record.decode_worker} itself",
            record.decode_worker or "",
            str(record.prompt_tokens),
            str(record.cached_tokens),
            str(record.output_tokens),
            f"{record.pulled_bytes / 1024:.0f} KiB" if record.pulled_bytes else "-",
            f"{record.pull_ms:.1f}" if record.pulled_bytes else "-",
            _ms(record.ttft_ms),
            _ms(record.itl_ms),
        )
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
