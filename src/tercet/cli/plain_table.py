"""How tables of the command line look."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table


def plain_table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """A table with a title and columns, those of `numbers` last and to the right."""
    table = Table(
        *columns,
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=0,
        pad_edge=False,
    )
    for name in numbers:
        table.add_column(name, justify="right")
    return table
