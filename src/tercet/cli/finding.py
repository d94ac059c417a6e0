"""From a name, or from nothing, to the controller of a running cluster."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tercet.cluster.ray_control import ControllerHandle
from tercet.cluster.ray_runtime import RayRuntime
from tercet.cluster.run_record import RunBook, RunRecord
from tercet.errors import TercetError


class NotFound(TercetError):
    """There is no such cluster, or nothing of that name in it; the message says what there is, or what to do."""


@contextmanager
def find(name: str, address: str, book: RunBook) -> Iterator[ControllerHandle]:
    """Connect to Ray and find a controller there. Raises NotFound, ConnectionError.

    Without an address the clusters noted on this machine are searched; the name may be empty where there is only one.
    """
    token = None
    if not address:
        record = note(name, book)
        name, address = record.name, record.address
        token = Path(record.ray_token) if record.ray_token else None
    runtime = RayRuntime.attach(address, token)
    try:
        controller = ControllerHandle.find(name or _only(ControllerHandle.clusters(), address))
        if controller is None:
            raise NotFound(f"Ray at {runtime.address} runs no cluster {name!r}")
        yield controller
    finally:
        runtime.stop()


def note(name: str, book: RunBook) -> RunRecord:
    """The record of a cluster on this machine. Raises NotFound."""
    if name:
        record = book.read(name)
        if record is None:
            raise NotFound(f"no cluster is called {name!r}; {_known(book)}")
        return record
    records = book.all()
    if len(records) != 1:
        raise NotFound(_known(book))
    return records[0]


def _known(book: RunBook) -> str:
    names = [record.name for record in book.all()]
    if names:
        return f"running here: {', '.join(names)}; choose one with --name"
    return "no cluster runs here; start one with `tercet serve -f cluster.yaml`, or pass --address for one on another Ray cluster"


def _only(names: list[str], address: str) -> str:
    if not names:
        raise NotFound(f"Ray at {address} runs no cluster of ours")
    if len(names) > 1:
        raise NotFound(f"Ray at {address} runs {', '.join(names)}; choose one with --name")
    return names[0]
