"""The command line: `tercet serve | status | down | demo | config`."""

from tercet.cli.commands import main

__all__ = ["main"]
