"""What a launcher keeps in /tmp: directories, each with a deed that says who made it and which processes came with it.

A launcher that is killed cannot clear up. The next one does it for those, and only those, that it can prove to be dead.
"""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from tercet.cluster.process_tree import Process, end, pid_space, process
from tercet.errors import TercetError

PREFIX = "tercet-"
"""Begins the name of every directory that may have a deed."""
DEED = "owner.json"
END_PATIENCE_S = 0.2
"""Ray's helpers look for their dead head for a minute; nobody waits for that."""


class Deed(msgspec.Struct, frozen=True):
    """Whose a directory is. Pids mean nothing outside the `pid_space` in which they were written."""

    owner: Process
    family: tuple[Process, ...]
    """Processes that are of no use without the owner."""
    pid_space: str


def sign(directory: Path, family: Iterable[Process] = ()) -> None:
    """Make a directory, if need be, and make it ours, with the processes that shall end when we are found dead.

    Signing again replaces the deed. Raises TercetError when others could write there.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    if not _private(directory):
        raise TercetError(f"{directory} is open to others than us; remove it")
    owner = process(os.getpid())
    assert owner is not None, "we live"
    draft = directory / f"{DEED}.new"
    draft.write_bytes(msgspec.json.encode(Deed(owner, tuple(family), pid_space())))
    draft.replace(directory / DEED)


def clear_abandoned(root: Path) -> list[Path]:
    """Remove the directories below `root` whose owners are dead, and end what is left of their families; returns them.

    Whatever has no deed, or one that proves nothing, is not touched.
    """
    cleared = []
    for directory, deed in _abandoned(root):
        end({each for each in deed.family if each.alive}, END_PATIENCE_S)
        _remove(directory)
        cleared.append(directory)
    return cleared


def _abandoned(root: Path) -> Iterator[tuple[Path, Deed]]:
    for directory in sorted(root.glob(f"{PREFIX}*")):
        deed = _read(directory) if _private(directory) else None
        if deed is not None and deed.pid_space == pid_space() and not deed.owner.alive:
            yield directory, deed


def _private(directory: Path) -> bool:
    """Whether nobody but us can have put anything there."""
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return False  # somebody else clears up, too
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return ours and not found.st_mode & 0o077


def _read(directory: Path) -> Deed | None:
    try:
        return msgspec.json.decode((directory / DEED).read_bytes(), type=Deed)
    except (OSError, msgspec.DecodeError):
        return None


def _remove(directory: Path) -> None:
    """The deed goes last: a removal that was cut short, or overtaken by a dying process, is taken up by the next launcher."""
    with suppress(FileNotFoundError):  # when two launchers clear up, one is the first
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != DEED:
                entry.unlink(missing_ok=True)
        if {entry.name for entry in directory.iterdir()} == {DEED}:
            shutil.rmtree(directory, ignore_errors=True)
