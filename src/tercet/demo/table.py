"""One table: each request, where it ran, what moved, how fast it was."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tercet.ids import RequestId
from tercet.router.record import RequestRecord

COLUMNS = ("prompt", "cached", "output", "pulled", "TTFT", "ITL")


def request_table(records: Sequence[RequestRecord], doors: Mapping[RequestId, str]) -> Table:
    """The records, oldest first; `doors` names the entrance of each."""
    table = Table(
        "request",
        "door",
        "prefill",
        "decode",
        title="What became of them (tokens, bytes, ms)",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for record in records:
        table.add_row(
            record.request[-6:],
            doors.get(record.request, ""),
            record.prefill_worker or "-",
            record.decode_worker or "-",
            str(record.prompt_tokens),
            str(record.cached_tokens),
            str(record.output_tokens),
            str(record.pulled_bytes) if record.pulled_bytes else "-",
            _ms(record.ttft_ms),
            _ms(record.itl_ms),
        )
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
