"""Waits for workers that are being drained, and says how far they are."""

import time
from collections.abc import Callable, Iterator

from rich.console import Console

from tercet.app import outlook
from tercet.cluster.ray_control import ControllerHandle
from tercet.cluster.seat import Phase
from tercet.cluster.status import ClusterStatus, WorkerReport
from tercet.errors import OptionError

POLL_S = 0.3
LEAVING = (Phase.DRAINING, Phase.STOPPING)


def drain(controller: ControllerHandle, worker: str, console: Console) -> None:
    """Have one worker emptied and replaced; returns when its life has ended. Raises OptionError."""
    before = controller.status()
    lives = {report.worker: report.incarnation for report in before.workers}
    controller.drain(worker)

    def is_over(now: ClusterStatus) -> bool:
        return all(lives.get(r.worker) != r.incarnation for r in now.workers if r.worker == worker)

    _wait(controller, before, is_over, console)


def scale(
    controller: ControllerHandle, prefill: int | None, decode: int | None, console: Console
) -> None:
    """Have so many workers; returns when those that are too many are gone. Raises OptionError."""
    if prefill is None and decode is None:
        raise OptionError("scale", "nothing is asked for", "say --prefill, --decode or both")
    before = controller.status()
    controller.scale(prefill, decode)
    now = _wait(
        controller, before, lambda now: all(r.phase not in LEAVING for r in now.workers), console
    )
    console.print(outlook(now))


def _wait(
    controller: ControllerHandle,
    before: ClusterStatus,
    is_over: Callable[[ClusterStatus], bool],
    console: Console,
) -> ClusterStatus:
    """The first status of which that holds. Tells what has happened to workers meanwhile, and what is still there."""
    told = set(before.story)
    with console.status("waiting for the controller") as line:
        while True:
            now = controller.status()
            for event in now.story:
                if event not in told:
                    told.add(event)
                    console.print(event.partition(" ")[2])  # without the controller's time
            if is_over(now):
                return now
            line.update("; ".join(_left(now)))
            time.sleep(POLL_S)


def _left(status: ClusterStatus) -> Iterator[str]:
    for report in status.workers:
        if report.phase in LEAVING:
            yield f"{report.worker} is {report.phase}: {_what(report)}"


def _what(report: WorkerReport) -> str:
    figures = report.figures.worker if report.figures is not None else None
    return (figures.left if figures is not None else "") or "nothing left"
