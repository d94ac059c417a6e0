"""The command line: `tercet serve | status | why | move | drain | scale | down | demo | simulate | config`."""

from tercet.cli.commands import main

__all__ = ["main"]
