"""What to try on a demo that goes on serving: lines to copy, and a note by which `tercet status` and `down` find it."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from tercet.cluster.run_record import RunBook, RunRecord

BODY = (
    '{"model": "%s", "messages": [{"role": "user", "content": "What is 12 + 30?"}], "stream": true}'
)


def invite(console: Console, model: str, http: str, grpc: str) -> None:
    """Print what can be typed, each line in one piece however narrow the terminal is: a break would be copied with it."""
    text = (
        "\nServing until Ctrl-C. In another terminal:\n\n"
        f"  curl -N http://{http}/v1/chat/completions -H 'content-type: application/json' \\\n"
        f"    -d '{BODY % model}'\n\n"
        "  from tercet.client import Client\n"
        f'  with Client("{grpc}") as client:\n'
        '      for piece in client.stream(messages=[{"role": "user", "content": "What is 12 + 30?"}]):\n'
        '          print(piece.text, end="")\n\n'
        "  .venv/bin/tercet status\n"
        f"  curl http://{http}/tercet/status\n"
    )
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def noted(record: RunRecord, book: RunBook) -> Iterator[None]:
    """Keep the record while the context lasts; a cluster of the same name that runs already stays the one to be found."""
    if book.read(record.name) is not None:
        yield
        return
    book.write(record)
    try:
        yield
    finally:
        book.remove(record.name)
