"""The processes below one of ours, read from /proc, and a way to end what refuses to: no process outlives us unseen.

A process is named by its pid and start time together, so that a pid that was given away again is never mistaken.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

POLL_S = 0.05


class Process(NamedTuple):
    """One life of a pid. `started_ticks` counts clock ticks since boot."""

    pid: int
    started_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        stat = _stat(self.pid)
        return stat is not None and stat.started_ticks == self.started_ticks and stat.state != "Z"

    @property
    def command(self) -> str:
        """Its command line, for people; empty when it is gone."""
        try:
            raw = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return raw.replace(b"\0", b" ").decode(errors="replace").strip()


class _Stat(NamedTuple):
    state: str
    parent: int
    started_ticks: int


def process(pid: int) -> Process | None:
    """The process that has this pid now."""
    stat = _stat(pid)
    return None if stat is None else Process(pid, stat.started_ticks)


def pid_space() -> str:
    """Where pids and start times mean the same processes as here: one boot of one machine, one namespace."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def descendants(root: int) -> set[Process]:
    """Every process below `root`, without itself. Those whose parent has died count as nobody's."""
    stats = {int(entry.name): _stat(int(entry.name)) for entry in _numbered()}
    children: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    found, frontier = set(), [root]
    while frontier:
        for pid in children.get(frontier.pop(), ()):
            stat = stats[pid]
            if stat is not None:
                found.add(Process(pid, stat.started_ticks))
                frontier.append(pid)
    return found


def survivors(processes: set[Process], wait_s: float) -> set[Process]:
    """Those that still run after at most `wait_s` seconds; empty as soon as none does."""
    deadline_s = time.monotonic() + wait_s
    while living := {each for each in processes if each.alive}:
        if time.monotonic() >= deadline_s:
            return living
        time.sleep(POLL_S)
    return set()


def end(processes: set[Process], patience_s: float) -> set[Process]:
    """Wait for processes to end, kill those that do not, and return the ones that had to be killed."""
    stubborn = survivors(processes, patience_s)
    for each in stubborn:
        if each.alive:
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    survivors(stubborn, patience_s)
    return stubborn


def _numbered() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None  # it ended while we looked
    fields = text.rpartition(")")[2].split()  # the command in parentheses may hold anything
    return _Stat(fields[0], int(fields[1]), int(fields[19]))
