"""Serving until told to stop, in the foreground or in a process of its own, and ending what serves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from tercet.app import Asked, Cluster, asked_to_stop, check_ports, launch, take_down
from tercet.cli.finding import find, note
from tercet.cluster.process_tree import Process, survivors
from tercet.cluster.ray_control import ControllerHandle
from tercet.cluster.run_record import RunBook, RunRecord
from tercet.cluster.status import ClusterStatus
from tercet.config import ClusterConfig
from tercet.errors import TercetError

WATCH_S = 1.0
"""How often a server looks whether its cluster was ended by somebody else."""
DOWN_S_MAX = 60.0
DETACH_POLL_S = 0.1
LOG_LINES = 20


def serve_here(
    config: ClusterConfig, file: Path, address: str, book: RunBook, console: Console
) -> None:
    """Serve until SIGINT or SIGTERM, or until `tercet down`; nothing of the cluster is left afterwards."""
    _refuse_twin(config, book)
    if not address:
        check_ports(config)
    with asked_to_stop() as asked:
        try:
            with (
                console.status("starting") as line,
                launch(config, address=address, report=lambda text: line.update(text)) as cluster,
            ):
                asked.listen()  # Ray has put its own handlers in place
                book.write(cluster.record())
                ready = cluster.wait_ready(lambda text: line.update(text))
                line.stop()
                book.write(cluster.record(ready=True))
                console.print(entrances(config, ready))
                _wait(cluster)
                line.start()
        except Asked:
            console.print("stopped")
        finally:
            book.remove(config.name)
    for command in cluster.killed:
        console.print(f"had to kill: {command}")


def serve_detached(
    config: ClusterConfig, file: Path, address: str, book: RunBook, console: Console
) -> None:
    """Start a server that outlives this process; return when it is ready. Raises TercetError when it is not."""
    _refuse_twin(config, book)
    log = book.root / f"{config.name}.log"
    book.remove(config.name)  # also makes the directory
    command = [sys.executable, "-m", "tercet.cli", "serve", "-f", str(file.absolute())]
    command += ["--run-dir", str(book.root.absolute())] + (
        ["--address", address] if address else []
    )
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with console.status(f"starting; see {log}"):
        while (record := book.read(config.name)) is None or not record.ready:
            if server.poll() is not None:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
                raise TercetError(f"the server ended with code {server.returncode}:\n{tail}")
            time.sleep(DETACH_POLL_S)
    console.print(f"cluster {config.name!r} serves at http://{record.http} (log {log})")
    console.print(f"end it with: tercet down --name {config.name}")


def down(name: str, address: str, book: RunBook, console: Console) -> None:
    """End a cluster, by asking its server where it has one. Raises NotFound, TercetError."""
    if not address:
        record = note(name, book)
        if record.server is not None:
            with console.status(f"ending {record.name}"):
                _end_server(record, record.server)
            book.remove(record.name)
            console.print(f"cluster {record.name!r} has ended")
            return
        name = record.name
    with find(name, address, book) as controller, console.status("ending") as line:
        take_down(controller, report=lambda text: line.update(text))
    book.remove(controller.cluster)
    console.print(f"cluster {controller.cluster!r} has ended")


def entrances(config: ClusterConfig, status: ClusterStatus) -> str:
    """Where to send requests, in two lines."""
    doors = ", ".join(door.grpc for door in status.front_doors)
    return (
        f"{config.model.name or 'the model'} is served at http://{status.http}/v1 (HTTP) and {doors} (gRPC)\n"
        "Ctrl-C ends it"
    )


def _end_server(record: RunRecord, server: Process) -> None:
    os.kill(server.pid, signal.SIGTERM)
    if survivors({server}, DOWN_S_MAX):
        raise TercetError(
            f"the server of {record.name!r}, process {server.pid}, did not end within {DOWN_S_MAX:g} s;"
            f" end it with `kill -9 {server.pid}`"
        )


def _wait(cluster: Cluster) -> None:
    """Return when somebody else has ended the cluster."""
    while ControllerHandle.find(cluster.config.name) is not None:
        time.sleep(WATCH_S)


def _refuse_twin(config: ClusterConfig, book: RunBook) -> None:
    if book.read(config.name) is not None:
        raise TercetError(
            f"cluster {config.name!r} runs here already; end it with `tercet down --name {config.name}`"
        )
