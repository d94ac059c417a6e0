"""`python -m tercet.cli`, for a server that starts another one."""

from tercet.cli.commands import main

main()
