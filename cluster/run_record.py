"""Where to find a cluster that `tercet serve` started on this machine: one small private file a cluster.

Knows nothing of Ray; whether what a record names still runs is for its reader to find out.
"""

import os
import stat
import tempfile
from pathlib import Path

import msgspec

from tercet.cluster.process_tree import Process
from tercet.errors import TercetError


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one running cluster."""

    name: str
    address: str
    """Ray's GCS, `host:port`."""
    http: str
    """`host:port` of the HTTP entrance."""
    server: Process | None = None
    """The process whose end is the cluster's end; None when the Ray cluster is not ours."""
    ray_token: str = ""
    """File with the token that Ray asks for; empty when it asks for none."""
    ready: bool = False
    """Whether it has been ready once."""

    @property
    def alive(self) -> bool:
        """False when its server is known to be gone."""
        return self.server is None or self.server.alive


class RunBook:
    """The records of one user, in a directory that nobody else may enter."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(tempfile.gettempdir()) / f"tercet-{os.getuid()}"

    def write(self, record: RunRecord) -> Path:
        """Keep a record, in place of an older one of the same name."""
        path = self.path(record.name)
        draft = path.with_suffix(".new")
        draft.write_bytes(msgspec.json.encode(record))
        draft.replace(path)
        return path

    def read(self, name: str) -> RunRecord | None:
        """The record of a cluster that is not known to be gone."""
        try:
            record = msgspec.json.decode(self.path(name).read_bytes(), type=RunRecord)
        except FileNotFoundError:
            return None
        return record if record.alive else None

    def all(self) -> list[RunRecord]:
        """Every living record, by name."""
        names = sorted(path.stem for path in self._directory().glob("*.json"))
        return [record for name in names if (record := self.read(name)) is not None]

    def remove(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def path(self, name: str) -> Path:
        return self._directory() / f"{name}.json"

    def _directory(self) -> Path:
        """The root; refused when somebody else could have put records there, because records are trusted."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = self.root.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise TercetError(f"{self.root} belongs to somebody else; pass another --run-dir")
        if found.st_mode & 0o022:
            self.root.chmod(0o700)
        return self.root
