"""A cluster's status as tables for people."""

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from tercet.cli.plain_table import plain_table
from tercet.cluster.seat import Phase
from tercet.cluster.status import ClusterStatus, FrontDoorReport, WorkerReport
from tercet.wire import LoadFigures

COLOURS = {
    Phase.UP: "green",
    Phase.STARTING: "yellow",
    Phase.PENDING: "yellow",
    Phase.DRAINING: "yellow",
    Phase.BACKOFF: "red",
    Phase.STOPPING: "yellow",
}
INCARNATION_CHARS = 8
NAME_CHARS = 13
STORY_LINES = 5


def status_tables(status: ClusterStatus) -> list[RenderableType]:
    """What `tercet status` prints, top to bottom."""
    state = Text("ready", "green") if status.ready else Text("not ready", "yellow")
    head = Text.assemble(
        (status.cluster, "bold"),
        " is ",
        state,
        f"; HTTP at http://{status.http}, membership version {status.membership_version}",
    )
    parts: list[RenderableType] = [head, _workers(status), _hand_offs(status), _doors(status)]
    parts += [_accuracy(door) for door in status.front_doors if door.ttft_accuracy.predictions]
    trouble = [w for w in status.workers if w.reason]
    parts += [Text(f"{w.worker}: {_trouble(w)}", "yellow") for w in trouble]
    if trouble:
        parts += [Text(line, "dim") for line in status.story[-STORY_LINES:]]
    return parts


def _workers(status: ClusterStatus) -> Table:
    names = ("worker", "phase", "incarnation", "pid", "restarts")
    numbers = ("wait", "run", "pull", "held", "KV blocks")
    table = plain_table("Pools", *names, numbers=numbers)
    for worker in status.workers:
        figures = worker.figures
        age_s = worker.phase_s if figures is None else figures.up_s
        phase = Text(f"{worker.phase} {_ago(age_s)}", COLOURS[worker.phase])
        cells = [worker.incarnation[:INCARNATION_CHARS]]
        cells += [str(figures.pid) if figures else "", str(worker.restarts)]
        load = _load(worker)
        if load is not None:
            cells += [str(n) for n in (load.waiting, load.running, load.pulling, load.holding)]
            cells.append(f"{load.blocks_used}/{load.blocks_total}")
        table.add_row(worker.worker, phase, *cells)
    return table


def _hand_offs(status: ClusterStatus) -> Table:
    numbers = ("pulls", "MiB pulled", "GB/s", "failed", "committed", "recomputed", "held back")
    table = plain_table("Hand-offs since each worker's start", "worker", numbers=numbers)
    for worker in status.workers:
        load = _load(worker)
        if load is None or worker.figures is None or worker.figures.worker is None:
            continue
        outcomes = worker.figures.worker
        rate = f"{load.pull_bytes / load.pull_s / 1e9:.2g}" if load.pull_s else "-"
        table.add_row(
            worker.worker,
            str(load.pulls),
            f"{load.pull_bytes / 2**20:.2f}",
            rate,
            str(load.pull_failures),
            str(outcomes.committed),
            str(outcomes.recomputed),
            str(load.quarantined_blocks),
        )
    return table


def _doors(status: ClusterStatus) -> Table:
    numbers = ("pid", "in flight", "queued", "turned away", "workers")
    table = plain_table("Front doors", "front door", "gRPC", numbers=numbers)
    for door in status.front_doors:
        figures = (door.pid, door.in_flight, door.queued, door.turned_away, door.workers)
        table.add_row(door.front_door[:NAME_CHARS], door.grpc, *(str(figure) for figure in figures))
    return table


def _accuracy(door: FrontDoorReport) -> Text:
    seen = door.ttft_accuracy
    return Text(
        f"{door.front_door[:NAME_CHARS]}: first tokens of the last {seen.predictions} requests were off their"
        f" prediction by {seen.error_ms_p50:.3g} ms (p50), {seen.error_ms_p90:.3g} ms (p90)"
    )


def _load(worker: WorkerReport) -> LoadFigures | None:
    own = worker.figures.worker if worker.figures is not None else None
    return own.load if own is not None else None


def _trouble(worker: WorkerReport) -> str:
    if worker.crash_looping:
        return f"crash-looping, {worker.failures} failures in a row; the last: {worker.reason}"
    return (
        f"waiting: {worker.reason}"
        if worker.phase is Phase.PENDING
        else f"last ended by: {worker.reason}"
    )


def _ago(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
