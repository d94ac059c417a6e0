"""How commands end that cannot do what was asked."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.text import Text

from tercet.cli.finding import NotFound
from tercet.errors import ConfigError, OptionError, TercetError, TraceError


@contextmanager
def told() -> Iterator[None]:
    """Errors that are ours become one line and an exit code; anything else is a bug and shows its traceback."""
    try:
        yield
    except (ConfigError, NotFound, OptionError, TraceError) as exc:
        complain(exc)
        raise typer.Exit(2) from exc
    except (TercetError, ConnectionError) as exc:
        complain(exc)
        raise typer.Exit(1) from exc


def complain(error: Exception | str) -> None:
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), str(error)))
